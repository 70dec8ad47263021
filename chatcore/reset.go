package chatcore

import (
	"context"
	"fmt"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// resetsWaiting is how many requests for a reset wait for their mail.
const resetsWaiting = 64

// mailer takes mails away. When Send returns nil the mail will not be lost by
// a crash of this program. Calls come from one goroutine, and nobody retries:
// a person who gets no mail asks again.
type mailer interface {
	Send(context.Context, chat.Mail) error
}

// RequestReset asks for a link by which the owner of an address can set a new
// password. It does the same for every address: whether there is an account is
// found out later, by another goroutine, so neither the answer nor its delay
// tells. When too many wait it waits too, as long as ctx lasts.
func (s *Service) RequestReset(ctx context.Context, email string) error {
	if len(email) > chat.EmailMax {
		return nil // no account has such an address; nothing to look up
	}
	select {
	case s.resets <- chat.EmailKey(email):
		return nil
	case <-ctx.Done():
		return chat.Errorf(chat.Unavailable, "Too many requests wait; try again later")
	}
}

// mailResets sends the mails that RequestReset asked for, until ctx ends.
func (s *Service) mailResets(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-s.resets:
			if err := s.mailReset(ctx, key); err != nil && !stopped(err) {
				s.log.ErrorContext(ctx, "mailing a password reset", "error", err.Error())
			}
		}
	}
}

func (s *Service) mailReset(ctx context.Context, key string) error {
	account, _, err := s.db.AccountByEmail(ctx, key)
	if err != nil {
		if isKind(err, chat.NotFound) {
			return nil
		}
		return err
	}
	secret, hash := newSecret()
	now := s.now()
	expires := now.Add(resetLifetime)
	if err := s.db.AddReset(ctx, account.ID, hash, now, expires); err != nil {
		return err
	}
	m := resetMail(account, s.publicURL+"/password/reset/"+secret)
	m.CreatedAt, m.ExpiresAt = now, expires
	for _, to := range s.mailers {
		if err := to.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func resetMail(a chat.Account, link string) chat.Mail {
	m := chat.Mail{To: a.Email, Language: a.Language}
	if a.Language == "ja" {
		m.Subject = "パスワード再設定のご案内"
		m.Body = fmt.Sprintf("%s 様\n\nパスワードの再設定を受け付けました。1時間以内に次のリンクを開き、新しいパスワードを設定してください。\n\n%s\n\nお心当たりがない場合は、このメールを破棄してください。パスワードは変わりません。\n", a.Name, link)
	} else {
		m.Subject = "Reset your password"
		m.Body = fmt.Sprintf("Hello %s,\n\nSomebody asked for a new password for your account. Open this link within one hour to set one:\n\n%s\n\nIf it was not you, ignore this mail. Your password stays as it is.\n", a.Name, link)
	}
	return m
}

// CheckReset reports, as chat.ErrResetGone, that a link's secret does not
// work any more.
func (s *Service) CheckReset(ctx context.Context, secret string) error {
	return s.db.ResetValid(ctx, hashSecret(secret), s.now())
}

// ResetPassword uses a link's secret up: it sets the new password and ends
// every session of the account.
func (s *Service) ResetPassword(ctx context.Context, secret, next string) error {
	key, err := chat.NewPassword(next)
	if err != nil {
		return err
	}
	// Looked up before the hash is computed, so that made-up links are cheap.
	if err := s.CheckReset(ctx, secret); err != nil {
		return err
	}
	hash, err := s.hasher.Hash(ctx, key)
	if err != nil {
		return err
	}
	id, err := s.db.ResetPassword(ctx, hashSecret(secret), hash, s.now())
	if err != nil {
		return err
	}
	s.endSessions(id, chat.Credential{})
	return nil
}
