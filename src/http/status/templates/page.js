
"use strict";
// The copy buttons. Browsers have a clipboard API only with TLS. On plain HTTP the older command copies what is selected.
// Without either, the buttons stay hidden.
const hasClipboard = window.isSecureContext && navigator.clipboard !== undefined;
const hasCommand = document.queryCommandSupported !== undefined && document.queryCommandSupported("copy");

async function copy(text) {
  if (hasClipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The browser's settings forbid it. The command may still work.
    }
  }
  const area = document.createElement("textarea");
  area.className = "taken-from";
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = hasCommand && document.execCommand("copy");
  area.remove();
  return copied;
}

for (const button of document.querySelectorAll("button[data-copies]")) {
  const label = button.firstChild;
  button.hidden = !(hasClipboard || hasCommand);
  button.addEventListener("click", async () => {
    const block = document.getElementById(button.dataset.copies);
    const copied = await copy(block.textContent + "\n");
    if (!copied) {
      window.getSelection().selectAllChildren(block);
    }
    button.focus();
    label.data = copied ? "Copied" : "Press Ctrl+C";
    document.getElementById("said").textContent = label.data;
    setTimeout(() => {
      label.data = "Copy";
      document.getElementById("said").textContent = "";
    }, 2000);
  });
}
