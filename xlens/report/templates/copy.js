for (const button of document.querySelectorAll(".copied button")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); }
    catch { document.execCommand("copy"); } // where a page from disk may not use the clipboard
    button.textContent = "Copied";
  });
}
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
