// Passkeys and security keys for the gate's pages (WebAuthn Level 3). A button with
// data-begin gets options there, asks the browser for a key, and sends the answer with
// its form.
(function () {
  'use strict';
  if (!window.PublicKeyCredential || !navigator.credentials) return;

  function bytes(text) {
    const raw = atob(text.replace(/-/g, '+').replace(/_/g, '/'));
    return Uint8Array.from(raw, function (c) { return c.charCodeAt(0); });
  }

  function text(buffer) {
    let raw = '';
    new Uint8Array(buffer).forEach(function (b) { raw += String.fromCharCode(b); });
    return btoa(raw).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  }

  function known(list) {
    return (list || []).map(function (c) { return Object.assign({}, c, { id: bytes(c.id) }); });
  }

  // read makes of JSON what navigator.credentials takes.
  function read(options, create) {
    if (create) {
      if (PublicKeyCredential.parseCreationOptionsFromJSON) return PublicKeyCredential.parseCreationOptionsFromJSON(options);
      return Object.assign({}, options, {
        challenge: bytes(options.challenge),
        user: Object.assign({}, options.user, { id: bytes(options.user.id) }),
        excludeCredentials: known(options.excludeCredentials)
      });
    }
    if (PublicKeyCredential.parseRequestOptionsFromJSON) return PublicKeyCredential.parseRequestOptionsFromJSON(options);
    return Object.assign({}, options, { challenge: bytes(options.challenge), allowCredentials: known(options.allowCredentials) });
  }

  // write makes JSON of what navigator.credentials gave. Some programs that keep
  // passkeys give a toJSON that throws.
  function write(credential) {
    try {
      if (credential.toJSON) return JSON.stringify(credential.toJSON());
    } catch (e) { /* by hand, then */ }
    const from = credential.response, response = { clientDataJSON: text(from.clientDataJSON) };
    if (from.attestationObject) {
      response.attestationObject = text(from.attestationObject);
      if (from.getTransports) response.transports = from.getTransports();
    } else {
      response.authenticatorData = text(from.authenticatorData);
      response.signature = text(from.signature);
      if (from.userHandle) response.userHandle = text(from.userHandle);
    }
    return JSON.stringify({
      id: credential.id, rawId: text(credential.rawId), type: credential.type, response: response,
      authenticatorAttachment: credential.authenticatorAttachment || undefined,
      clientExtensionResults: credential.getClientExtensionResults()
    });
  }

  // begin gets the options. Nothing of the form goes there but its token and a name.
  async function begin(button) {
    const form = button.form, body = new URLSearchParams({ csrf: form.elements.csrf.value });
    if (form.elements.name) body.set('name', form.elements.name.value);
    const answer = await fetch(button.dataset.begin, {
      method: 'POST', body: body, headers: { Accept: 'application/json' }, credentials: 'same-origin', redirect: 'error', cache: 'no-store'
    });
    if (!answer.ok) throw new Error('HTTP ' + answer.status);
    const options = await answer.json();
    return options.publicKey || options;
  }

  function reason(error) {
    switch (error && error.name) {
      case 'NotAllowedError': case 'AbortError': return 'stopped';
      case 'InvalidStateError': return 'already';
    }
    return 'failed';
  }

  document.querySelectorAll('button[data-begin]').forEach(function (button) {
    const form = button.form, create = 'create' in button.dataset;
    const error = form.querySelector('[data-error]');
    button.hidden = false;
    form.querySelector('[data-without]').hidden = true;

    function tell(why) {
      error.textContent = button.dataset[why];
      error.hidden = false;
      button.disabled = false;
      button.focus();
    }

    button.addEventListener('click', async function () {
      button.disabled = true;
      error.hidden = true;
      error.textContent = '';
      let options;
      try {
        options = await begin(button);
      } catch (e) {
        tell('unreached');
        return;
      }
      try {
        const publicKey = read(options, create);
        const credential = create ? await navigator.credentials.create({ publicKey: publicKey }) : await navigator.credentials.get({ publicKey: publicKey });
        form.elements.credential.value = write(credential);
      } catch (e) {
        tell(reason(e));
        return;
      }
      form.submit();
    });
  });

  // Who comes back by the browser's button finds the page as it was left.
  window.addEventListener('pageshow', function () {
    document.querySelectorAll('button[data-begin]').forEach(function (button) { button.disabled = false; });
  });
})();
