// The handles of ipywidgets' sliders have no name for screen readers: give them that of their label.
function nameHandles(root) {
  root.querySelectorAll(".noUi-handle").forEach((handle) => {
    const name = handle.closest(".jupyter-widgets")?.querySelector(".widget-label")?.textContent;
    if (name && handle.getAttribute("aria-label") !== name) handle.setAttribute("aria-label", name);
  });
}

function render({ el }) {
  let watcher;
  const start = () => {
    if (!el.isConnected) return void setTimeout(start, 50);
    el.style.display = "none";
    const root = el.parentElement.closest(".jupyter-widgets") ?? el.parentElement;
    nameHandles(root);
    watcher = new MutationObserver(() => nameHandles(root));
    watcher.observe(root, { childList: true, subtree: true });
  };
  start();
  return () => watcher?.disconnect();
}

export default { render };
