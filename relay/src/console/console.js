// The page works without this: it only spares the reload. Nothing is sent but the request that a reload would be.
(() => {
  const every = 10000;
  const refresh = async () => {
    if (document.hidden || String(getSelection())) return;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (!fresh) return location.reload(); // not a page of ours: the browser shows what it is
      document.querySelector("main").replaceWith(fresh);
      document.title = page.title;
    } catch {
      document.title = "(no answer) " + document.title.replace(/^\(no answer\) /, "");
    }
  };
  if (document.querySelector("main[data-live]")) setInterval(refresh, every);
})();
