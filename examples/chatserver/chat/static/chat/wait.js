// Loads the page again when the file that it needs is there.

(function () {
  "use strict";

  const { waitFor } = document.querySelector("[data-wait-for]").dataset;

  async function look() {
    const answer = await fetch(waitFor, { method: "HEAD", cache: "no-store" }).catch(() => null);
    if (answer && answer.ok) {
      location.reload();
    } else {
      setTimeout(look, 2000);
    }
  }
  setTimeout(look, 2000);
})();
