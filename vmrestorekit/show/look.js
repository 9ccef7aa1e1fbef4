// Names the handles of all sliders in the page by their labels, now and whenever some are added. One watcher
// is enough for a page, however many widgets bring it.
function nameSliders() {
  document.querySelectorAll(".noUi-handle").forEach((handle) => {
    const name = handle.closest(".jupyter-widgets")?.querySelector(".widget-label")?.textContent;
    if (name && handle.getAttribute("aria-label") !== name) handle.setAttribute("aria-label", name);
  });
}

function watch() {
  let waiting = 0;
  new MutationObserver(() => {
    cancelAnimationFrame(waiting); // once for many changes
    waiting = requestAnimationFrame(nameSliders);
  }).observe(document.body, { childList: true, subtree: true });
}

function render({ el }) {
  el.style.display = "none";
  nameSliders();
  if (!window.vmrestorekitNamesSliders) watch();
  window.vmrestorekitNamesSliders = true;
}

export default { render };
