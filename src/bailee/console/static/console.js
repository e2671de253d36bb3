// Improves what works without it: a log that goes on by itself, and buttons that copy.
"use strict";
for (const log of document.querySelectorAll("[data-follow]")) {
  const source = new EventSource(log.dataset.follow);
  const state = document.querySelector("[data-state]");
  log.textContent = "";
  source.addEventListener("log", (event) => {
    const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.append(event.data, "\n");
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("state", (event) => {
    const told = JSON.parse(event.data);
    if (state) state.textContent = told.reason ? `${told.state}: ${told.reason}` : told.state;
  });
  source.addEventListener("end", () => source.close());
}
for (const snippet of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(snippet.textContent.trim());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  snippet.after(button);
}
