// A table that is wider than the window scrolls by itself; let the keyboard reach it.
function reachWideTables() {
  for (const frame of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (frame.scrollWidth > frame.clientWidth) {
      frame.tabIndex = 0;
      frame.setAttribute("role", "region");
      frame.setAttribute("aria-label", "Table");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) frame.removeAttribute(name);
    }
  }
}

window.addEventListener("load", reachWideTables);
window.addEventListener("resize", reachWideTables);
