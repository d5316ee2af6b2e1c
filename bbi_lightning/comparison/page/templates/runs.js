// The table of every run: searched, filtered, sorted, and shown some rows at a time.
(() => {
  const FIRST = 50, CHUNK = 200;
  const explorer = document.getElementById("explorer");
  const data = JSON.parse(document.getElementById("run-data").textContent);
  const columns = data.columns.map((column) => ({ ...column, isNumber: !column.words }));
  const total = columns[0].values.length;
  const marked = new Set(data.marked), chosen = new Set(data.chosen);
  const collator = new Intl.Collator("en", { numeric: true });
  const shape = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false });
  let sorted = { column: null, descending: false };
  let rows = [], shown = 0, visible = columns;

  const number = (value, digits) => {
    if (digits !== null) return value.toFixed(digits);
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-4 || size >= 1e6) ? value.toExponential().replace("e+", "e") : shape.format(value);
  };
  const text = (column, row) => {
    const value = column.values[row];
    if (!column.isNumber) return column.words[value];
    return value === null ? "" : number(value, column.digits);
  };
  const words = Array.from({ length: total }, (_, row) => columns.map((c) => text(c, row)).join("\n").toLowerCase());

  // "lr<0.1" is a limit on a column whose name begins so, anything else a word that the row must have
  const LIMIT = /^([^<>=]+)(<=|>=|<|>|=)(-?[\d.]+(?:e[-+]?\d+)?)$/;
  const COMPARE = {
    "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b,
  };
  const condition = (term) => {
    const [, name, sign, limit] = LIMIT.exec(term) ?? [];
    const column = name && columns.find((c) => c.isNumber && c.name.toLowerCase().startsWith(name));
    if (!column) return (row) => words[row].includes(term);
    return (row) => column.values[row] !== null && COMPARE[sign](column.values[row], Number(limit));
  };

  const body = explorer.querySelector("tbody"), head = explorer.querySelector("thead tr");
  const count = document.getElementById("run-count"), more = explorer.querySelector(".more");
  const search = document.getElementById("run-search"), onlyMarked = document.getElementById("run-marked");
  const form = explorer.querySelector("form");

  const selects = columns.filter((c) => c.filter && c.words.length > 1).map((column) => {
    const label = document.createElement("label"), select = document.createElement("select");
    select.append(new Option("all", ""), ...column.words.map((word, place) => new Option(word, String(place))));
    label.append(`${column.name} `, select);
    form.insertBefore(label, form.querySelector(".check"));
    return { column, select };
  });
  form.querySelector(".check").hidden = marked.size === 0;

  const heads = columns.map((column) => {
    const cell = document.createElement("th"), button = document.createElement("button");
    cell.scope = "col";
    cell.setAttribute("aria-sort", "none");
    cell.className = column.isNumber ? "number" : column.name === "Run" ? "name" : "";
    button.type = "button";
    button.textContent = column.name;
    button.addEventListener("click", () => {
      sorted = { column, descending: sorted.column === column && !sorted.descending };
      for (const [place, other] of heads.entries()) {
        const way = columns[place] !== column ? "none" : sorted.descending ? "descending" : "ascending";
        other.setAttribute("aria-sort", way);
      }
      update();
    });
    cell.append(button);
    head.append(cell);
    return cell;
  });

  const order = () => {
    const { column, descending } = sorted;
    if (!column) return;
    const sign = descending ? -1 : 1;
    const rank = column.isNumber ? null : new Map(
      column.words.map((_, place) => place).sort((a, b) => collator.compare(column.words[a], column.words[b])).map((place, at) => [place, at]),
    );
    const key = (row) => (rank ? (column.words[column.values[row]] === "" ? null : rank.get(column.values[row])) : column.values[row]);
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a - b; // what is missing comes last
      return sign * (x - y) || a - b;
    });
  };

  const line = (row) => {
    const tr = document.createElement("tr");
    if (marked.has(row)) tr.classList.add("marked");
    if (chosen.has(row)) tr.classList.add("chosen");
    for (const column of visible) {
      const cell = document.createElement("td");
      cell.textContent = text(column, row);
      if (column.isNumber) cell.className = "number";
      else if (column.name === "Notes") cell.className = "wrap";
      else if (column.name === "Run") cell.className = "name";
      tr.append(cell);
    }
    return tr;
  };

  const say = () => {
    const of = rows.length === total ? `${total} runs` : `${rows.length} of ${total} runs match`;
    count.textContent = rows.length === 0 ? `No run matches, of ${total}.` : shown < rows.length ? `${of}, the first ${shown} are shown.` : `${of}.`;
    more.replaceChildren();
    const left = rows.length - shown;
    if (left <= 0) return;
    for (const amount of left > CHUNK ? [CHUNK, left] : [left]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = amount === left ? `Show all ${rows.length}` : `Show ${amount} more`;
      button.addEventListener("click", () => {
        show(amount);
        (more.querySelector("button") ?? explorer.querySelector(".scroll")).focus({ preventScroll: true });
      });
      more.append(button);
    }
  };
  const show = (amount) => {
    body.append(...rows.slice(shown, shown + amount).map(line));
    shown = Math.min(rows.length, shown + amount);
    say();
  };

  const update = () => {
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean).map(condition);
    const wanted = selects.filter(({ select }) => select.value !== "").map(({ column, select }) => [column, Number(select.value)]);
    rows = [];
    for (let row = 0; row < total; row++) {
      if (onlyMarked.checked && !marked.has(row)) continue;
      if (wanted.every(([column, place]) => column.values[row] === place) && terms.every((holds) => holds(row))) rows.push(row);
    }
    order();
    // a column is shown where one of the rows has something in it: other arms' parameters would be empty
    visible = columns.filter((column) => rows.length === 0 || rows.some((row) => text(column, row) !== ""));
    columns.forEach((column, place) => { heads[place].hidden = !visible.includes(column); });
    body.replaceChildren();
    shown = 0;
    show(FIRST);
  };

  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
  form.addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("beforeprint", () => show(rows.length));
  update();
  explorer.hidden = false;
  for (const table of document.querySelectorAll(".without-script")) table.hidden = true;
})();
