// Steering as it is written: the form is sent with fetch, its answer is a stream of events, a button breaks it off.
const form = document.querySelector("#steer");
const status = document.querySelector("[data-status]");
const texts = document.querySelector("[data-texts]");
const stop = form.querySelector("[data-stop]");
let running = null;

const make = (name, values = {}, ...children) => {
  const element = Object.assign(document.createElement(name), values);
  element.append(...children);
  return element;
};

function side(name, prompt) {
  const text = make("span");
  const about = make("p", { className: "quiet" });
  const section = make("section", {}, make("h2", { textContent: name }));
  section.dataset.side = name;
  section.append(make("p", { className: "text" }, make("span", { className: "quiet", textContent: prompt }), text), about);
  texts.append(section);
  return { text, about, section };
}

const shown = {};
const handlers = {
  status: (event) => (status.textContent = event.text),
  warning: (event) => texts.before(make("p", { className: "warning", textContent: event.text })),
  begin(event, prompt) {
    shown[event.side] = side(event.side, prompt);
    status.textContent = `writing: ${event.side} …`;
  },
  text: (event) => (shown[event.side].text.textContent += event.text),
  done(event) {
    // The text as it is kept: pieces of a stream may differ from it in a space.
    shown[event.side].text.textContent = event.text;
    shown[event.side].about.textContent = `${event.tokens} tokens in ${event.seconds} s`;
    for (const warning of event.warnings) shown[event.side].about.append(make("br"), warning);
    if (!event.hooks.length) return;
    const list = event.hooks.map((hook) =>
      make(
        "li",
        {},
        make("code", { textContent: hook.module }),
        ` ${hook.calls} calls, ${hook.positions} positions`,
        hook.added === null ? "" : `, ${Number(hook.added.toPrecision(3))} added at each`,
      ),
    );
    const summary = make("summary", { textContent: `${event.hooks.length} hooks fired` });
    shown[event.side].section.append(make("details", {}, summary, make("ul", { className: "plain" }, ...list)));
  },
  norms(event) {
    told.dataset.norms = event.values.join(" ");
    follow();
  },
  nats: (event) => shown[event.side].about.append(`, ${event.nats.toFixed(2)} nats a token`),
  stopped: (event) => (status.textContent = event.text),
  error: (event) => (status.textContent = event.text),
  end(event) {
    history.replaceState(null, "", event.address);
    if (/^(writing|loaded)/.test(status.textContent)) status.textContent = "done";
  },
};

async function events(answer, handle) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) handle(JSON.parse(part.replace(/^data: /, "")));
  }
}

async function run(data, prompt) {
  running = new AbortController();
  form.querySelector("button.main").disabled = true;
  stop.hidden = false;
  texts.replaceChildren();
  for (const old of document.querySelectorAll("p.warning")) old.remove();
  status.textContent = "asking …";
  try {
    const answer = await fetch("/steer/stream", { method: "POST", body: data, signal: running.signal });
    if (!answer.ok) {
      const again = answer.headers.get("retry-after");
      status.textContent = (await answer.json()).error + (again ? ` (in ${again} seconds)` : "");
      return;
    }
    await events(answer, (event) => handlers[event.event]?.(event, prompt));
  } catch (error) {
    status.textContent = error.name === "AbortError" ? "stopped" : `the connection broke (${error.message})`;
  } finally {
    running = null;
    form.querySelector("button.main").disabled = false;
    stop.hidden = true;
  }
}

form.addEventListener("submit", (event) => {
  // The plan's download is a form of its own.
  if (event.submitter?.hasAttribute("formaction")) return;
  event.preventDefault();
  if (!running) run(new URLSearchParams(new FormData(form)), form.elements.prompt.value);
});
stop.addEventListener("click", () => running?.abort());

// A slider for shares of the norm beside the field that takes any strength.
const slider = form.querySelector("[data-strength]");
const strength = form.elements.strength;
slider.closest("[hidden]").hidden = false;
const told = slider.parentElement.querySelector("output");
const follow = () => {
  const share = /^(-?[\d.]+)%$/.exec(strength.value.trim());
  slider.value = share ? share[1] : 0;
  // As a length too, where it is known how long what is steered is: after advise, or a run.
  const norms = told.dataset.norms.split(" ").filter(Boolean).map(Number);
  const lengths = norms.map((norm) => Math.abs((share?.[1] ?? 0) / 100) * norm);
  const ends = [Math.min(...lengths), Math.max(...lengths)].map((length) => String(Number(length.toPrecision(3))));
  told.value = share ? strength.value + (norms.length ? ` = ${[...new Set(ends)].join(" to ")}` : "") : "";
};
slider.addEventListener("input", () => {
  strength.value = `${slider.value}%`;
  follow();
});
strength.addEventListener("input", follow);
follow();
