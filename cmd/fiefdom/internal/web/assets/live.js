// Keeps the page as it would be after a reload. Without this script the page is
// whole, and the link reloads it.
'use strict';
(() => {
  const main = document.getElementById('main');
  const live = document.getElementById('live');
  const pause = document.getElementById('pause');
  const usual = 2000, most = 15000;
  let wait = usual, timer = 0, request = null, paused = false;

  // morph makes a node what another one is, and leaves alone what is equal:
  // focus, selection and scrolling stay where they are.
  function morph(old, now) {
    if (old.isEqualNode(now)) return;
    if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) {
      old.replaceWith(document.importNode(now, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = now.nodeValue;
      return;
    }
    if (old.nodeName === 'INPUT' && old.type === 'search') return; // the reader's own
    for (const a of [...old.attributes]) if (!now.hasAttribute(a.name)) old.removeAttribute(a.name);
    for (const a of now.attributes) if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
    children(old, now);
  }

  const keyed = (e) => e.dataset.key !== undefined;

  function children(old, now) {
    if ([...now.children].some(keyed)) return rows(old, now);
    let at = old.firstChild;
    for (const c of now.childNodes) {
      if (!at) {
        old.appendChild(document.importNode(c, true));
        continue;
      }
      const next = at.nextSibling;
      morph(at, c);
      at = next;
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  // rows are told apart by their keys: one that stays is the same element.
  function rows(old, now) {
    const wanted = new Set([...now.children].map((c) => c.dataset.key));
    const have = new Map();
    for (const c of [...old.children]) {
      if (wanted.has(c.dataset.key) && !have.has(c.dataset.key)) have.set(c.dataset.key, c);
      else c.remove();
    }
    let at = old.firstElementChild;
    for (const c of now.children) {
      const same = have.get(c.dataset.key);
      if (!same) {
        old.insertBefore(document.importNode(c, true), at);
        continue;
      }
      if (same === at) at = at.nextElementSibling;
      else old.insertBefore(same, at);
      morph(same, c);
    }
  }

  // show puts the answer into the page. What moves keeps the focus.
  function show(now) {
    const active = document.activeElement;
    morph(main, now);
    if (active !== document.activeElement && active.isConnected) active.focus({preventScroll: true});
  }

  function say(text, bad) {
    live.textContent = text;
    document.body.classList.toggle('away', bad);
  }

  function later() {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(refresh, wait);
  }

  function refresh() {
    clearTimeout(timer);
    if (request) request.abort();
    const r = request = new XMLHttpRequest();
    r.open('GET', location.href);
    r.responseType = 'document';
    r.timeout = 20000;
    r.onload = () => {
      const now = r.response && r.response.getElementById('main');
      if (!now) return lost(r.status === 401 ? 'the key is not valid any more: reload' : 'no answer (' + r.status + ')');
      show(now);
      document.title = r.response.title;
      wait = usual;
      say(paused ? 'paused at ' + time() : 'live, ' + time(), false);
      later();
    };
    r.onerror = r.ontimeout = () => lost('the emperor does not answer');
    r.send();
  }

  function lost(why) {
    wait = Math.min(2 * wait, most);
    say(why + '; as of ' + (live.dataset.at || 'the start') + ', trying again', true);
    later();
  }

  function time() {
    return live.dataset.at = new Date().toLocaleTimeString([], {hour12: false});
  }

  pause.hidden = false;
  document.getElementById('reload').hidden = true;
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.textContent = paused ? 'go on' : 'pause';
    if (paused) {
      clearTimeout(timer);
      say('paused at ' + (live.dataset.at || time()), false);
    } else refresh();
  });
  document.addEventListener('visibilitychange', () => { if (!document.hidden && !paused) refresh(); else clearTimeout(timer); });

  let typed = 0;
  main.addEventListener('input', (e) => {
    if (!e.target.matches('#filter input')) return;
    clearTimeout(typed);
    typed = setTimeout(() => {
      const q = new URLSearchParams(location.search);
      q.delete('page');
      if (e.target.value) q.set('filter', e.target.value); else q.delete('filter');
      history.replaceState(null, '', './?' + q);
      refresh();
    }, 150);
  });
  main.addEventListener('submit', (e) => { if (e.target.id === 'filter') e.preventDefault(); });
  document.addEventListener('keydown', (e) => {
    const field = document.querySelector('#filter input');
    if (e.key === '/' && field && document.activeElement !== field && !e.ctrlKey && !e.metaKey && !e.altKey) {
      e.preventDefault();
      field.focus();
    }
  });

  say('live', false);
  later();
})();
