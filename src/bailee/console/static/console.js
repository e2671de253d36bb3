// Improves what works without it: logs and numbers that go on by themselves, buttons that copy. Passkeys need it.
"use strict";
for (const plain of document.querySelectorAll("[data-plain]")) plain.hidden = true;
for (const log of document.querySelectorAll("[data-follow]")) {
  const source = new EventSource(log.dataset.follow);
  const state = document.querySelector("[data-state]");
  log.scrollTop = log.scrollHeight;
  source.addEventListener("log", (event) => {
    const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.append(`${event.data}\n`);
    // What a browser draws without effort; the page loaded anew has the last of it as well.
    while (log.childNodes.length > 5000) log.firstChild.remove();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("state", (event) => {
    const told = JSON.parse(event.data);
    if (state) state.textContent = told.reason ? `${told.state}: ${told.reason}` : told.state;
  });
  // What stands beside the log is of when the page was loaded: its buttons, and what it asked for.
  source.addEventListener("end", () => { source.close(); location.reload(); });
}
function makeButton(words, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet copy";
  button.textContent = words;
  button.addEventListener("click", act);
  return button;
}
function addCopying(place) {
  for (const snippet of place.querySelectorAll("[data-copy]")) {
    const button = makeButton("Copy", async () => {
      await navigator.clipboard.writeText(snippet.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    snippet.after(button);
  }
}
for (const live of document.querySelectorAll("[data-live]")) {
  let isPaused = false, known = live.innerHTML;
  const button = makeButton("Pause", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Go on" : "Pause";
  });
  const words = document.createElement("p");
  words.className = "soft";
  const state = document.createElement("span");
  state.setAttribute("role", "status");
  const renewed = "Renewed every ten seconds. ";
  state.textContent = renewed;
  words.append(state, button);
  let last = new Date();
  const tellFault = () => { state.textContent = `Not renewed since ${last.toISOString().slice(11, 19)} UTC: the service does not answer. `; };
  live.after(words);
  setInterval(async () => {
    // Whoever is at something there is not disturbed.
    const chosen = document.getSelection();
    const isChosen = chosen && !chosen.isCollapsed && live.contains(chosen.anchorNode);
    if (isPaused || document.hidden || isChosen || live.contains(document.activeElement)) return;
    let page;
    try {
      const answer = await fetch(location.href);
      if (!answer.ok) { tellFault(); return; }
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch { tellFault(); return; }
    const next = page.querySelector("[data-live]");
    // Signed out meanwhile: the page to sign in came in its place.
    if (!next) { location.reload(); return; }
    last = new Date();
    if (state.textContent !== renewed) state.textContent = renewed;
    // What is the same is left alone: a reader would say its alarms again.
    if (next.innerHTML === known) return;
    known = next.innerHTML;
    const places = [...live.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    live.replaceChildren(...next.childNodes);
    live.querySelectorAll(".scroll").forEach((one, place) => { one.scrollLeft = places[place] || 0; });
    addCopying(live);
  }, 10000);
}
addCopying(document);
for (const form of document.querySelectorAll("form[data-goes-on]")) form.submit();
for (const form of document.querySelectorAll("[data-passkey]")) {
  const words = form.querySelector("[data-words]");
  const button = form.querySelector("button");
  const isAdded = form.dataset.passkey === "create";
  if (!window.PublicKeyCredential?.parseRequestOptionsFromJSON) {
    words.textContent = "This browser knows no passkeys: use the password, or a link.";
    continue;
  }
  words.textContent = "";
  form.querySelector("[data-scripted]").hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    words.textContent = "";
    button.disabled = true;
    try {
      const body = new URLSearchParams({ form_token: form.elements.form_token.value });
      const answer = await fetch(`${form.getAttribute("action")}/challenge`, { method: "POST", body });
      if (!answer.headers.get("content-type")?.startsWith("application/json")) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        throw new Error(page.querySelector(".problem")?.textContent.trim() || "Load the page anew, and try again.");
      }
      const options = await answer.json();
      const made = isAdded
        ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
        : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
      form.elements.answer.value = JSON.stringify(made);
      form.submit();
    } catch (error) {
      const told = { NotAllowedError: "No passkey was given.", InvalidStateError: "This device has one already." };
      words.textContent = told[error.name] || error.message;
      button.disabled = false;
    }
  });
}
