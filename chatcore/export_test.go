package chatcore

import (
	"context"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// StoredHash is an account's password hash.
func (s *Service) StoredHash(ctx context.Context, id chat.AccountID) (string, error) {
	return s.db.Password(ctx, id)
}
