// Live updates and posting without reloading. Every page works without this
// file; with it, new messages appear as they are sent.
(() => {
  'use strict';

  const shell = document.querySelector('[data-live]');
  if (!shell) return;

  const lang = document.documentElement.lang;
  const room = shell.dataset.room || '';
  const me = shell.dataset.me || '';
  const past = 'past' in shell.dataset;
  let cursor = shell.dataset.cursor || '';

  const list = shell.querySelector('[data-messages]');
  const scroll = shell.querySelector('[data-scroll]');
  const status = shell.querySelector('[data-status]');

  // Message numbers may be larger than a script's numbers are exact, so they
  // are compared as text.
  const shown = new Set();
  if (list) for (const li of list.querySelectorAll('[data-id]')) shown.add(li.dataset.id);

  const zone = shell.dataset.zone || undefined;
  const clock = new Intl.DateTimeFormat(lang, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23', timeZone: zone });
  const date = new Intl.DateTimeFormat(lang === 'ja' ? 'ja-JP' : 'en-GB',
    { weekday: lang === 'ja' ? 'short' : 'long', year: 'numeric', month: 'long', day: 'numeric', timeZone: zone });
  const iso = new Intl.DateTimeFormat('en-CA', { year: 'numeric', month: '2-digit', day: '2-digit', timeZone: zone });

  const atEnd = () => scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  const toEnd = () => { scroll.scrollTop = scroll.scrollHeight; };
  if (scroll && !past) toEnd();

  function say(live) {
    if (!status) return;
    status.hidden = false;
    status.classList.toggle('live', live);
    status.textContent = live ? status.dataset.liveText : status.dataset.waitText;
  }

  function append(message) {
    if (shown.has(message.message_id)) return;
    shown.add(message.message_id);
    const follow = atEnd() || String(message.account.account_id) === me;
    const at = new Date(message.send_time * 1000);
    const days = list.querySelectorAll('[data-day]');
    const today = iso.format(at);
    if (!days.length || days[days.length - 1].dataset.day !== today) {
      const day = shell.querySelector('[data-day-template]').content.firstElementChild.cloneNode(true);
      day.dataset.day = today;
      day.firstElementChild.textContent = date.format(at);
      list.append(day);
    }
    const li = shell.querySelector('[data-message-template]').content.firstElementChild.cloneNode(true);
    li.dataset.id = message.message_id;
    li.classList.add('new');
    li.classList.toggle('mine', String(message.account.account_id) === me);
    const avatar = li.querySelector('.avatar');
    avatar.classList.add('hue-' + (message.account.account_id % 8));
    avatar.textContent = [...message.account.name.trim()][0]?.toUpperCase() ?? '?';
    li.querySelector('strong').textContent = message.account.name;
    const time = li.querySelector('time');
    time.dateTime = at.toISOString();
    time.textContent = clock.format(at);
    li.querySelector('.message-body').textContent = message.body;
    list.append(li);
    shell.querySelector('.nothing').hidden = true;
    if (follow) toEnd();
  }

  function unread(id, count) {
    const badge = shell.querySelector(`[data-room-link="${CSS.escape(String(id))}"] [data-unread]`);
    if (!badge) return;
    const n = count ?? Number(badge.dataset.unread) + 1;
    badge.dataset.unread = String(n);
    badge.querySelector('[data-count]').textContent = String(n);
    badge.hidden = n === 0;
  }

  let reading = false;
  async function markRead() {
    if (!room || past || reading || document.visibilityState !== 'visible') return;
    reading = true;
    try {
      const answer = await fetch(`/v2/rooms/${room}/messages/read`, { method: 'PUT', signal: AbortSignal.timeout(10000) });
      if (answer.ok) unread(room, (await answer.json()).unread_num);
    } catch { /* the next message tries again */ } finally { reading = false; }
  }

  function take(feed) {
    if (feed.too_old) { location.reload(); return; }
    cursor = feed.cursor;
    let here = false;
    for (const event of feed.events) {
      if (event.type === 'room_created' || event.type === 'members_changed') {
        if (!room) { location.reload(); return; }
      }
      if (event.type !== 'message_created' || !event.message) continue;
      if (String(event.room_id) === room) {
        if (past) continue;
        append(event.message);
        here = true;
      } else {
        unread(event.room_id);
      }
    }
    if (here) markRead();
  }

  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const query = () => (cursor ? '?cursor=' + encodeURIComponent(cursor) : '');

  // One WebSocket until it breaks. Resolves to whether it ever worked.
  function socket() {
    return new Promise((resolve) => {
      let worked = false;
      const url = new URL('/events/ws' + query(), location.href);
      url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
      let ws;
      try { ws = new WebSocket(url); } catch { resolve(false); return; }
      ws.onmessage = (m) => { worked = true; say(true); take(JSON.parse(m.data)); };
      ws.onclose = (e) => {
        if (e.code === 4401) { location.assign('/login'); return; }
        resolve(worked);
      };
    });
  }

  // Long polls for a while, for networks that let no WebSocket through.
  async function poll(until) {
    while (Date.now() < until) {
      const answer = await fetch('/events/poll' + query(), { signal: AbortSignal.timeout(40000) });
      if (answer.status === 401) { location.assign('/login'); return; }
      if (!answer.ok && answer.status !== 410) throw new Error(String(answer.status));
      say(true);
      take(await answer.json());
    }
  }

  async function live() {
    let failures = 0;
    for (;;) {
      if (await socket()) failures = 0; else failures++;
      if (failures >= 2) {
        try { await poll(Date.now() + 120000); failures = 0; continue; } catch { /* wait below */ }
      }
      say(false);
      // Everybody comes back at another moment after a restart.
      await pause(Math.min(30000, 500 * 2 ** failures) * (0.5 + Math.random()));
    }
  }

  const form = shell.querySelector('[data-composer]');
  if (form) {
    const body = form.querySelector('textarea');
    const button = form.querySelector('button');
    const error = form.querySelector('[data-composer-error]');
    form.addEventListener('submit', async (e) => {
      e.preventDefault();
      if (button.disabled || !body.value.trim()) return;
      button.disabled = true;
      error.hidden = true;
      try {
        const answer = await fetch(`/v2/rooms/${room}/messages`, {
          method: 'POST', body: new URLSearchParams({ body: body.value }), signal: AbortSignal.timeout(15000),
        });
        if (answer.status === 401) { location.assign('/login'); return; }
        if (!answer.ok) throw new Error(String(answer.status));
        body.value = '';
        if (past) location.assign(`/rooms/${room}`);
      } catch {
        error.textContent = form.dataset.failed;
        error.hidden = false;
      } finally {
        button.disabled = false;
        body.focus();
      }
    });
    body.addEventListener('keydown', (e) => {
      if (e.key === 'Enter' && (e.ctrlKey || e.metaKey) && !e.isComposing) {
        e.preventDefault();
        form.requestSubmit();
      }
    });
  }

  document.addEventListener('visibilitychange', markRead);
  markRead();
  live();
})();
