package chatcore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// CallerBySession is whom a session's secret belongs to, or
// chat.ErrCredential.
func (s *Service) CallerBySession(ctx context.Context, secret string) (chat.Caller, error) {
	return s.db.CallerBySession(ctx, hashSecret(secret), s.now())
}

// CallerByToken is whom an API token belongs to, or chat.ErrCredential.
func (s *Service) CallerByToken(ctx context.Context, secret string) (chat.Caller, error) {
	return s.db.CallerByToken(ctx, hashSecret(secret))
}

// NewToken makes an API token with all of the account's rights. Its secret is
// returned this once and cannot be had again.
func (s *Service) NewToken(ctx context.Context, c chat.Caller, name string) (chat.Token, string, error) {
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); n < 1 || n > chat.TokenNameMax || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return chat.Token{}, "", chat.Errorf(chat.Invalid, "name must have 1 to %d characters", chat.TokenNameMax)
	}
	b := make([]byte, 16)
	rand.Read(b)
	secret := hex.EncodeToString(b)
	t := chat.Token{Account: c.Account.ID, Name: name, CreatedAt: s.now()}
	var err error
	if t.ID, err = s.db.AddToken(ctx, t, hashSecret(secret)); err != nil {
		return chat.Token{}, "", err
	}
	return t, secret, nil
}

// Tokens are the caller's API tokens, without their secrets.
func (s *Service) Tokens(ctx context.Context, c chat.Caller) ([]chat.Token, error) {
	return s.db.Tokens(ctx, c.Account.ID)
}

// DeleteToken ends one of the caller's tokens and its feeds.
func (s *Service) DeleteToken(ctx context.Context, c chat.Caller, id chat.TokenID) error {
	if err := s.db.DeleteToken(ctx, c.Account.ID, id); err != nil {
		return err
	}
	s.live.end(func(f *Feed) bool { return f.caller.Credential.Token == id })
	return nil
}
