// Passkeys: a form with data-passkey asks the server for options, lets the browser answer, and posts the answer.
(() => {
  'use strict';

  const able = window.PublicKeyCredential && PublicKeyCredential.parseCreationOptionsFromJSON && PublicKeyCredential.parseRequestOptionsFromJSON;
  if (!able) return;

  const answer = async (form) => {
    const began = await fetch(form.dataset.begin, { method: 'POST', credentials: 'same-origin' });
    if (!began.ok) throw new Error('refused');
    const { options, ceremony } = await began.json();
    const make = form.dataset.passkey === 'create';
    const credential = make
      ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options.publicKey || options) })
      : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey || options) });
    form.elements.ceremony.value = ceremony;
    form.elements.response.value = JSON.stringify(credential.toJSON());
    form.submit();
  };

  for (const form of document.querySelectorAll('form[data-passkey]')) {
    const failed = form.querySelector('[data-failed]');
    form.hidden = false;
    form.addEventListener('submit', (e) => {
      e.preventDefault();
      failed.hidden = true;
      const button = form.querySelector('button');
      button.disabled = true;
      answer(form).catch(() => {
        failed.hidden = false;
        button.disabled = false;
      });
    });
  }
})();
