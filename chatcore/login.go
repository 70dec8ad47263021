package chatcore

import (
	"context"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// Login checks an address and a password and begins a session, whose secret
// it returns. Every refusal is chat.ErrLogin: an unknown address, a wrong
// password and an empty field cannot be told apart, and each costs one hash.
func (s *Service) Login(ctx context.Context, email, password string) (chat.Account, string, chat.Session, error) {
	fail := func(err error) (chat.Account, string, chat.Session, error) {
		return chat.Account{}, "", chat.Session{}, err
	}
	account, hash, err := s.db.AccountByEmail(ctx, chat.EmailKey(email))
	if err != nil && !isKind(err, chat.NotFound) {
		return fail(err)
	}
	key := chat.PasswordKey(password)
	// For an unknown account hash is empty, and Verify works as long.
	ok, err := s.hasher.Verify(ctx, key, hash)
	switch {
	case err != nil:
		return fail(err)
	case !ok:
		return fail(chat.ErrLogin)
	}
	if s.hasher.Outdated(hash) {
		old := hash
		if hash, err = s.hasher.Hash(ctx, key); err != nil {
			return fail(err)
		}
		replaced, err := s.db.Rehash(ctx, account.ID, old, hash)
		if err != nil {
			return fail(err)
		}
		if !replaced {
			// Another login stored its own hash first, or the password is
			// another one now: what was verified is not what counts.
			return s.Login(ctx, email, password)
		}
	}
	secret, id := newSecret()
	now := s.now()
	session := chat.Session{Hash: id, Account: account.ID, CreatedAt: now, ExpiresAt: now.Add(s.sessionLifetime)}
	if err := s.db.AddSession(ctx, session, hash); err != nil {
		return fail(err)
	}
	return account, secret, session, nil
}

// Logout ends the caller's session and its feeds. Tokens do not log out.
func (s *Service) Logout(ctx context.Context, c chat.Caller) error {
	if err := s.db.EndSession(ctx, c.Credential.Session); err != nil {
		return err
	}
	s.live.end(func(f *Feed) bool { return f.caller.Credential == c.Credential })
	return nil
}

// ChangePassword replaces the caller's password and ends all other sessions
// of the account. API tokens go on working; they have their own end.
func (s *Service) ChangePassword(ctx context.Context, c chat.Caller, current, next string) error {
	key, err := chat.NewPassword(next)
	if err != nil {
		return err
	}
	old, err := s.db.Password(ctx, c.Account.ID)
	if err != nil {
		return err
	}
	ok, err := s.hasher.Verify(ctx, chat.PasswordKey(current), old)
	switch {
	case err != nil:
		return err
	case !ok:
		return chat.ErrPasswordWrong
	}
	hash, err := s.hasher.Hash(ctx, key)
	if err != nil {
		return err
	}
	if err := s.db.ChangePassword(ctx, c.Account.ID, old, hash, c.Credential.Session); err != nil {
		return err
	}
	s.endSessions(c.Account.ID, c.Credential)
	return nil
}

// endSessions ends the feeds of an account's sessions but keep's.
func (s *Service) endSessions(id chat.AccountID, keep chat.Credential) {
	s.live.end(func(f *Feed) bool {
		return f.caller.Account.ID == id && f.caller.Credential.Token == 0 && f.caller.Credential != keep
	})
}

// SetLanguage sets the language the caller reads.
func (s *Service) SetLanguage(ctx context.Context, c chat.Caller, language string) error {
	if language != "ja" && language != "en" {
		return chat.Errorf(chat.Invalid, "language is ja or en")
	}
	return s.db.SetLanguage(ctx, c.Account.ID, language)
}
