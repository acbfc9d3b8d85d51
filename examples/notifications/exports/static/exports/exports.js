// Shows whether the page is live. htmx does the rest.

(function () {
  "use strict";

  const pill = document.querySelector("[data-status]");

  function show(status, text) {
    pill.dataset.status = status;
    pill.textContent = text;
  }

  document.addEventListener("htmx:sseOpen", () => show("live", "live"));
  document.addEventListener("htmx:sseError", () => show("wait", "reconnecting"));
})();
