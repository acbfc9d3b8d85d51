// What the pages share: the lines of a conversation, where they are stored, and sending one.

const Lines = (function () {
  "use strict";

  const LINES_KEPT = 200;

  // The tab's own storage, apart for each author, who may log out and let another one log in.
  function storage_of(me) {
    return {
      getItem(key) {
        try {
          return sessionStorage.getItem(`${me}:${key}`);
        } catch {
          return null; // the browser forbids it
        }
      },
      setItem(key, value) {
        try {
          sessionStorage.setItem(`${me}:${key}`, value);
        } catch {
          // it is forbidden, or full
        }
      },
    };
  }

  function element(tag, class_name, text) {
    const node = document.createElement(tag);
    node.className = class_name;
    node.textContent = text; // never innerHTML, because anybody may have written it
    return node;
  }

  // Each name always gets the same colour.
  function hue_of(name) {
    let hash = 0;
    for (const char of name) {
      hash = (hash * 31 + char.codePointAt(0)) % 360;
    }
    return hash;
  }

  function row_of({ author, text, mine, to, at, missing }) {
    if (missing) {
      return element("p", "missing", "Some messages may be missing here.");
    }
    const row = element("article", author === null ? "message plain" : "message", "");
    row.classList.toggle("mine", mine);
    if (author !== null) {
      row.style.setProperty("--hue", hue_of(author));
      const avatar = element("span", "avatar", Array.from(author)[0].toUpperCase());
      avatar.setAttribute("aria-hidden", "true");
      row.append(avatar);
    }
    const bubble = element("div", "bubble", "");
    if (author !== null) {
      bubble.append(element("b", "author", to ? `${author} → ${to}` : author));
    }
    bubble.append(element("p", "text", text || "(empty message)"));
    const when = new Date(at);
    const time = element("time", "", when.toLocaleTimeString([], { timeStyle: "short" }));
    time.dateTime = when.toISOString();
    bubble.append(time);
    row.append(bubble);
    return row;
  }

  // A message is "author: text". What is of another form has no author.
  function parse(data) {
    const [, author, text] = /^([^\s:]{1,150}): ([\s\S]*)$/.exec(data) || [null, null, data];
    return { author, text, data };
  }

  function at_end(log) {
    return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  }

  // The keyboard of a telephone, an error above the field: what makes a log smaller hides no new line.
  function keep_at_end(log) {
    const size = () => `${log.clientWidth} ${log.clientHeight}`;
    let at_its_end = true;
    let known = size();
    log.addEventListener("scroll", () => {
      // With another size, it may be the end no more, though nobody has scrolled.
      at_its_end = size() === known ? at_end(log) : at_its_end;
    });
    new ResizeObserver(() => {
      known = size();
      if (at_its_end) {
        log.scrollTop = log.scrollHeight;
      }
    }).observe(log);
  }

  function show(log, line) {
    const follow = line.mine || at_end(log);
    log.querySelector(".empty")?.remove();
    log.append(row_of(line));
    if (follow) {
      log.scrollTop = log.scrollHeight;
    }
  }

  // The payloads that this page sent and that have not come back yet. All guests share one name, so
  // their own messages are recognised by them.
  function posted_by(me, guest) {
    const payloads = [];
    function forget(payload) {
      const position = payloads.indexOf(payload);
      if (position >= 0) {
        payloads.splice(position, 1);
      }
      return position >= 0; // whether this page had sent it
    }
    function is_mine({ author, data }) {
      const from_here = forget(data);
      return author === me && (me !== guest || from_here);
    }
    return { add: (payload) => payloads.push(payload), forget, is_mine };
  }

  // Returns a sentence that says why it was not sent, or "".
  async function post(url, body) {
    try {
      const response = await fetch(url, {
        method: "POST",
        body,
        headers: { Accept: "application/json" },
      });
      if (response.redirected) {
        location.reload(); // the login has expired, so the page redirects to the form
        return "";
      }
      const is_json = (response.headers.get("Content-Type") || "").includes("json");
      const answer = is_json ? await response.json() : {};
      return response.ok ? "" : answer.error || `The server refused it (${response.status}).`;
    } catch (failure) {
      console.warn(failure);
      return "The server cannot be reached. Your message was not sent.";
    }
  }

  return { LINES_KEPT, keep_at_end, parse, post, posted_by, show, storage_of };
})();
