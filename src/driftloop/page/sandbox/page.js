"use strict";
// Brings the page up to date without losing one's place, and sends what is clicked.
(() => {
  const main = document.getElementById("messages");
  const tabs = document.getElementById("tabs");
  const older = document.getElementById("older");
  const modal = document.getElementById("modal");
  const sure = document.getElementById("sure");
  const reader = document.getElementById("reader");
  const here = new URLSearchParams(location.search);
  const channel = document.body.dataset.channel;
  const shown = new Map();
  let modalHtml = "";

  const show = (told) => {
    if (tabs.dataset.html !== told.tabs) {
      tabs.innerHTML = tabs.dataset.html = told.tabs;
    }
    const wanted = new Set(told.articles.map((one) => one.id));
    for (const node of [...main.children]) {
      if (!wanted.has(node.id)) node.remove();
    }
    let before = null;
    for (const one of told.articles) {
      let node = document.getElementById(one.id);
      const open = node && node.contains(document.activeElement) && document.activeElement.matches("select");
      if (!node || (shown.get(one.id) !== one.html && !open)) {
        const holder = document.createElement("template");
        holder.innerHTML = one.html;
        const fresh = holder.content.querySelector("article");
        if (node) node.replaceWith(fresh);
        node = fresh;
        shown.set(one.id, one.html);
      }
      const place = before ? before.nextElementSibling : main.firstElementChild;
      if (place !== node) main.insertBefore(node, place);
      before = node;
    }
    document.getElementById("empty").hidden = told.articles.length > 0 || Boolean(channel);
    older.hidden = !told.older;
    older.textContent = `and ${told.older} older`;
    ask(told.modal);
  };

  const ask = (told) => {
    if (!told) {
      if (modal.open) modal.close();
      modalHtml = "";
      return;
    }
    if (told.html === modalHtml) return;
    // What is being written stays, when an error is shown beside it.
    const written = modal.dataset.view === told.id ? values() : {};
    modalHtml = modal.innerHTML = told.html;
    modal.dataset.view = told.id;
    for (const [block, actions] of Object.entries(written)) {
      for (const [action, value] of Object.entries(actions)) {
        const field = fields().find((one) => one.dataset.block === block && one.dataset.action === action);
        if (field) field.value = value;
      }
    }
    if (!modal.open) modal.showModal();
  };

  const fields = () => [...modal.querySelectorAll("input[data-block], textarea[data-block]")];

  const values = () => {
    const written = {};
    for (const field of fields()) {
      (written[field.dataset.block] ??= {})[field.dataset.action] = field.value;
    }
    return written;
  };

  const refresh = async () => {
    const asked = new URLSearchParams({ channel: channel || here.get("channel") || "", user: reader.value });
    try {
      const answer = await fetch(`/fragment.json?${asked}`);
      if (answer.ok) show(await answer.json());
      document.body.classList.toggle("offline", !answer.ok);
    } catch {
      document.body.classList.add("offline");
    }
  };

  const send = async (click) => {
    const answer = await fetch("/control/click", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ user: reader.value, ...click }),
    });
    await refresh();
    return answer.ok;
  };

  const confirmed = (text) =>
    new Promise((resolve) => {
      sure.querySelector("h2").textContent = text.title?.text ?? "Are you sure?";
      sure.querySelector("p").textContent = text.text.text;
      sure.querySelector("[value=yes]").textContent = text.confirm?.text ?? "Yes";
      sure.querySelector("[value=yes]").className = text.style === "danger" ? "danger" : "primary";
      sure.querySelector("[value=no]").textContent = text.deny?.text ?? "Cancel";
      sure.returnValue = "no";
      sure.addEventListener("close", () => resolve(sure.returnValue === "yes"), { once: true });
      sure.showModal();
    });

  const act = async (element, option) => {
    const message = element.closest(".message");
    if (element.dataset.confirm && !(await confirmed(JSON.parse(element.dataset.confirm)))) return;
    element.setAttribute("aria-busy", "true");
    element.disabled = true;
    await send({
      channel: message.dataset.channel,
      ts: message.dataset.ts,
      action_id: element.dataset.action,
      block_id: element.dataset.block,
      ...option,
    });
    element.removeAttribute("aria-busy");
    element.disabled = false;
  };

  main.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (button) act(button, {});
  });
  main.addEventListener("change", async (event) => {
    const select = event.target.closest("select[data-action]");
    if (!select) return;
    const option = select.value;
    select.blur();
    await act(select, { option });
    select.selectedIndex = 0;
  });
  modal.addEventListener("submit", (event) => {
    event.preventDefault();
    send({ view_id: modal.dataset.view, values: values() });
  });
  const closed = () => send({ view_id: modal.dataset.view, closed: true });
  modal.addEventListener("cancel", closed);
  modal.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) closed();
  });
  reader.addEventListener("change", () => {
    here.set("user", reader.value);
    if (channel) here.set("channel", channel);
    location.search = here;
  });

  setInterval(() => document.hidden || refresh(), 1000);
  refresh();
})();
