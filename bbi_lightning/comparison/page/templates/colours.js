"use strict";
// The reader's choice of light or dark, kept for the next page where the browser allows it.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("bbi-colours"); } catch { return null; } };
  const keep = (value) => { try { localStorage.setItem("bbi-colours", value); } catch { /* a private window */ } };
  const isDark = () => (root.dataset.colours ?? (dark.matches ? "dark" : "light")) === "dark";

  const button = document.createElement("button");
  button.type = "button";
  button.className = "colours";
  const show = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
  button.addEventListener("click", () => {
    root.dataset.colours = isDark() ? "light" : "dark";
    keep(root.dataset.colours);
    show();
  });
  dark.addEventListener("change", show);
  if (["light", "dark"].includes(kept())) root.dataset.colours = kept();
  root.classList.add("scripted");
  document.querySelector("header").append(button);
  show();
})();
