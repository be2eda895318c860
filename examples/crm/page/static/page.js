// What the pages can do without, done a little better: a revealed value is covered again after its
// time, menus close, and Ctrl K goes to the search box.
(() => {
  'use strict';

  // cover puts the mask back and the link that asks again beside it.
  const cover = (el) => {
    const mask = document.createElement('bdi');
    mask.className = 'mask';
    mask.textContent = el.dataset.mask;
    const box = document.createElement('div');
    box.className = 'protected';
    Object.assign(box.dataset, { mask: el.dataset.mask, label: el.dataset.label || '' });
    box.append(mask);
    if (el.dataset.again) {
      box.dataset.again = el.dataset.again;
      const link = document.createElement('a');
      link.className = 'reveal';
      link.href = el.dataset.again;
      link.textContent = el.dataset.label;
      link.setAttribute('hx-get', el.dataset.again);
      link.setAttribute('hx-target', 'closest .protected');
      link.setAttribute('hx-swap', 'outerHTML');
      box.append(' ', link);
    }
    const focused = el.contains(document.activeElement);
    el.replaceWith(box);
    if (window.htmx) window.htmx.process(box);
    if (focused) box.querySelector('a')?.focus();
  };

  // watch counts down for every revealed value, once.
  const watch = () => {
    for (const el of document.querySelectorAll('.protected[data-seconds]:not([data-watched])')) {
      el.dataset.watched = '';
      const end = Date.now() + 1000 * Number(el.dataset.seconds);
      const left = el.querySelector('[data-left]');
      const timer = setInterval(() => {
        const rest = Math.ceil((end - Date.now()) / 1000);
        if (!el.isConnected) clearInterval(timer);
        else if (rest <= 0) {
          clearInterval(timer);
          cover(el);
        } else if (left) left.textContent = rest;
      }, 250);
    }
    const input = document.querySelector('.ask input:not([data-seen])');
    if (input) {
      input.dataset.seen = '';
      input.focus();
    }
  };

  new MutationObserver(watch).observe(document.body, { childList: true, subtree: true });
  watch();

  // A page that comes back from the browser's memory must not show what has been covered.
  const coverAll = () => document.querySelectorAll('.protected[data-seconds]').forEach(cover);
  window.addEventListener('pagehide', coverAll);

  document.addEventListener('click', (e) => {
    const close = e.target.closest('.asking [data-close]');
    if (close) {
      e.preventDefault();
      cover(close.closest('.protected'));
    }
    for (const menu of document.querySelectorAll('details.menu[open]')) {
      if (!menu.contains(e.target)) menu.open = false;
    }
  });

  document.addEventListener('keydown', (e) => {
    if (e.key === 'Escape') {
      document.querySelectorAll('.asking').forEach(cover);
      for (const menu of document.querySelectorAll('details.menu[open]')) {
        menu.open = false;
        menu.querySelector('summary').focus();
      }
    }
    const box = document.querySelector('[data-find]');
    if (box && e.key === 'k' && (e.ctrlKey || e.metaKey) && !e.altKey && box.offsetParent) {
      e.preventDefault();
      box.focus();
      box.select();
    }
  });
})();
