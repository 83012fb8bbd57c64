// Buttons that act: each asks first, says what came of it, and is there only for who may act.

/** Ask whether to do it. Returns: a promise of true or false. */
function confirmed(title, text, verb, danger = false) {
  return new Promise((answered) => {
    const yes = h("button", { value: "yes", class: danger ? "danger" : "primary" }, verb);
    const no = h("button", { value: "no", autofocus: true }, "Cancel");
    const dialog = h(
      "dialog",
      { "aria-labelledby": "dialog-title", "aria-describedby": "dialog-text" },
      h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), h("p", { id: "dialog-text" }, text),
        h("div", { class: "buttons" }, no, yes)),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      answered(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Something was done, or was not. It stands in the corner for a while. */
function toast(text, bad = false) {
  const made = h("div", { class: bad ? "toast bad" : "toast" }, text);
  $("toasts").append(made);
  announce(text);
  setTimeout(() => made.remove(), bad ? 10_000 : 5000);
}

/**
 * A button that does something to the farm. ask: [title, text, verb] to be confirmed first, or null.
 * act: does it, and gives the text that says so.
 */
function actButton(label, { ask = null, danger = false, name = null, act }) {
  if (!mayAct()) return null;
  const button = h("button", { type: "button", class: danger ? "danger" : null, "aria-label": name, onclick: pressed }, label);
  async function pressed() {
    if (ask && !(await confirmed(...ask, danger))) return;
    button.disabled = true;
    try {
      toast(await act());
      turn();
    } catch (error) {
      toast(`${label}: ${error.message}`, true);
    } finally {
      button.disabled = false;
    }
  }
  return button;
}

/** A form. act: gets what was typed, by name, and gives the text that says what came of it. */
function actForm(title, fields, verb, act) {
  if (!mayAct()) return null;
  const said = h("output", { class: "said" });
  const button = h("button", { class: "primary" }, verb);
  const form = h("form", { class: "act", onsubmit: sent, "aria-label": title }, h("h3", {}, title), fields,
    h("div", { class: "buttons" }, button, said));
  async function sent(event) {
    event.preventDefault();
    button.disabled = true;
    said.className = "said";
    said.textContent = "…";
    try {
      said.textContent = await act(Object.fromEntries(new FormData(form)), form);
    } catch (error) {
      said.className = "said bad";
      said.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  }
  return form;
}

let fieldNumber = 0;

/** An input with its label. size: "wide", "whole" or "". */
function field(label, name, { size = "", element = null, ...attributes } = {}) {
  const id = `field-${(fieldNumber += 1)}`;
  const input = element || h("input", { autocomplete: "off", spellcheck: "false", ...attributes });
  input.id = id;
  input.name = name;
  return h("div", { class: `field ${size}` }, h("label", { for: id }, label), input);
}
