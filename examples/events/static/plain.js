// News by a bare EventSource.

const news = document.getElementById("news");

// The server has escaped it, and nobody else may publish here.
function add(html) {
  const { children } = document.createRange().createContextualFragment(html);
  news.append(...[...children].filter((item) => !document.getElementById(item.id)));
}

// First comes whatever was published since this page was asked for. A browser that reconnects says
// by itself where it stopped.
const source = new EventSource(news.dataset.events);
source.onmessage = ({ data }) => add(data);
// Something may be missing. To reload the page would not help if that is told again.
source.addEventListener("gap", async () => add(await (await fetch(news.dataset.all)).text()));

const form = document.getElementById("form");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  fetch(form.action, { method: "POST", body: new FormData(form) });
  form.reset();
});
