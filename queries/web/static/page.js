// What every page gains from scripts: a form that draws as its sliders move, numbers beside sliders, files into fields.
import { enhance } from "./drawing.js";

function beside(range) {
  const output = range.parentElement.querySelector("output");
  const show = () => output && (output.value = range.value);
  range.addEventListener("input", show);
  show();
}

// A form marked data-live is answered by its own page: fetch it, take its #view, keep the address in step.
function live(form) {
  let timer = 0;
  let turn = 0;
  const draw = async () => {
    const mine = ++turn;
    const address = `${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`;
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const view = document.querySelector("#view");
    const fresh = page.querySelector("#view") ?? page.querySelector(".error");
    if (mine !== turn || !fresh) return;
    view.replaceChildren(...(fresh.id === "view" ? fresh.childNodes : [fresh]));
    view.drawing = undefined;
    enhance(document);
    history.replaceState(null, "", address);
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(draw, 250);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    draw();
  });
}

// A box whose tick stands in for other fields: without scripts the server does the same.
for (const box of document.querySelectorAll("[data-instead]")) {
  const others = box.dataset.instead.split(" ").map((name) => box.form.elements[name]);
  box.addEventListener("input", () => others.forEach((field) => (field.disabled = box.checked)));
}
for (const range of document.querySelectorAll('input[type="range"]:not([data-threshold])')) beside(range);
for (const form of document.querySelectorAll("form[data-live]")) live(form);
for (const field of document.querySelectorAll('input[type="file"][data-into]')) {
  field.closest("[hidden]")?.removeAttribute("hidden");
  field.addEventListener("change", async () => {
    document.getElementById(field.dataset.into).value = field.files.length ? await field.files[0].text() : "";
  });
}
