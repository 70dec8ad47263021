package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// FactorNoticeKind is what happened to an authenticator or a held login.
type FactorNoticeKind string

const (
	FactorBound         FactorNoticeKind = "bound"
	FactorRenamed       FactorNoticeKind = "renamed"
	FactorRemoved       FactorNoticeKind = "removed"
	FactorWasDisabled   FactorNoticeKind = "disabled"
	FactorWasEnabled    FactorNoticeKind = "enabled"
	FactorGuessed       FactorNoticeKind = "guessed"         // wrong for the fifth time in a row
	FactorThrottled     FactorNoticeKind = "throttled"       // disabled after too many of them
	FactorCloned        FactorNoticeKind = "cloned"          // a key whose counter went back: there may be two
	RecoveryCodeUsed    FactorNoticeKind = "recovery_used"   // one of them
	RecoveryCodesVoided FactorNoticeKind = "recovery_voided" // by new ones

	HoldUnanswered FactorNoticeKind = "unanswered" // somebody had the right password and gave no factor
	HoldWasDenied  FactorNoticeKind = "denied"     // the same, and their login was denied
)

// FactorNotice is what the owner of an account is to be told (SP 800-63B-4 sections
// 4.1.2.1, 4.2.3, 4.5 and 4.6; ASVS 5.0 6.3.7).
//
// It is stored with the change itself. Whoever delivers it says so by Told; what
// is not told yet, because a crash came between, is found by Untold.
type FactorNotice struct {
	ID         string           `json:"id"` // also the same for each delivery: for an outbox that takes an intent once
	Kind       FactorNoticeKind `json:"kind"`
	Subject    string           `json:"subject"`
	Factor     string           `json:"factor"` // its id, or that of the held login
	FactorKind FactorKind       `json:"factor_kind"`
	Name       string           `json:"name"`         // of the authenticator, before the change
	By         string           `json:"by,omitempty"` // for people
	At         time.Time        `json:"at"`
	Client     string           `json:"client,omitempty"` // of a held login, as the next two
	Country    string           `json:"country,omitempty"`
	Source     string           `json:"source,omitempty"`
}

// Untold is the notices that nobody reported as told, the oldest first, at most
// 500. Call it at start-up and every now and then; several nodes may get the same.
func (fs *Factors) Untold(ctx context.Context) ([]FactorNotice, error) {
	all, err := fs.store.untold(ctx, untoldMax)
	if err != nil {
		return nil, fmt.Errorf("reading what owners are to be told: %w", err)
	}
	return all, nil
}

// Told forgets notices, at most 500 at once: somebody else keeps them now. Unknown
// ids are ignored.
func (fs *Factors) Told(ctx context.Context, ids ...string) error {
	if len(ids) > untoldMax {
		return fmt.Errorf("forgetting %d notices: at most %d at once", len(ids), untoldMax)
	}
	for _, id := range ids {
		if !storable(id) {
			return errors.New("forgetting notices: an id is not a text")
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if err := fs.store.told(ctx, ids); err != nil {
		return fmt.Errorf("forgetting notices: %w", err)
	}
	return nil
}
