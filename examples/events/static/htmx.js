// What htmx leaves to the page.

// What is on this page already is not added again.
document.addEventListener("htmx:load", ({ detail: { elt } }) => {
  if (elt.matches("#news > li") && document.querySelectorAll(`#${elt.id}`).length > 1) {
    elt.remove();
  }
});

document.addEventListener("htmx:afterRequest", ({ target }) => {
  if (target.matches("form")) {
    target.reset();
  }
});
