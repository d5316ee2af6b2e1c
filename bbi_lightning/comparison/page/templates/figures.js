// Saves a single figure, or its numbers, from the archive that the page holds.
(() => {
  const link = document.getElementById("figures-archive");
  if (!link || typeof DecompressionStream === "undefined") return;
  const TYPES = { svg: "image/svg+xml", png: "image/png", csv: "text/csv" };

  let files = null; // name to compressed bytes
  const open = () => {
    if (files) return files;
    const bytes = Uint8Array.from(atob(link.href.slice(link.href.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const end = bytes.length - 22; // no comment follows the end record
    let at = view.getUint32(end + 16, true);
    files = new Map();
    for (let left = view.getUint16(end + 10, true); left > 0; left--) {
      const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + view.getUint16(at + 28, true)));
      const header = view.getUint32(at + 42, true);
      const start = header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
      files.set(name, bytes.subarray(start, start + view.getUint32(at + 20, true)));
      at += 46 + view.getUint16(at + 28, true) + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    }
    return files;
  };

  const save = async (name) => {
    const inflated = new Blob([open().get(name)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const blob = new Blob([await new Response(inflated).arrayBuffer()], { type: TYPES[name.split(".").pop()] });
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(blob);
    anchor.download = name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  };

  for (const figure of document.querySelectorAll("figure[data-files]")) {
    const line = document.createElement("p");
    line.className = "save";
    line.append("Save ");
    for (const kind of figure.dataset.files.split(" ")) {
      const name = `${figure.dataset.key}.${kind}`, button = document.createElement("button");
      button.type = "button";
      button.className = "plain";
      button.textContent = kind.toUpperCase();
      button.setAttribute("aria-label", `Save ${name}`);
      button.addEventListener("click", () => save(name));
      line.append(button, " ");
    }
    figure.append(line);
  }
})();
