package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
)

// Kinds of entries of acts on factors. Owners who do the same on their own pages leave
// the same ones.
const (
	actRemoveFactor   = record.Acts + "factor.remove"
	actDisableFactor  = record.Acts + "factor.disable"
	actEnableFactor   = record.Acts + "factor.enable"
	actEnrolmentCode  = record.Acts + "enrolment.code"
	actCancelRecovery = record.Acts + "recovery.cancel"
)

// enrolmentCodeFor is how long a code of an operator is good (SP 800-63B-4 section
// 4.2.1.2).
const enrolmentCodeFor = 24 * time.Hour

// ErrNoFactors means that the gate has no second factors, because the configuration
// does not say where people reach the service.
var ErrNoFactors = errors.New("there are no second factors: the option origin is not set")

// RemoveFactor unbinds an authenticator in the name of by. Its owner is told, as of
// the acts that follow.
func (c *Core) RemoveFactor(ctx context.Context, account, id, by string) (auth.Factor, error) {
	return c.actOnFactor(ctx, actRemoveFactor, account, id, by, (*auth.Factors).Remove)
}

// DisableFactor suspends an authenticator in the name of by.
func (c *Core) DisableFactor(ctx context.Context, account, id, by string) (auth.Factor, error) {
	return c.actOnFactor(ctx, actDisableFactor, account, id, by, (*auth.Factors).Disable)
}

// EnableFactor takes DisableFactor back in the name of by.
func (c *Core) EnableFactor(ctx context.Context, account, id, by string) (auth.Factor, error) {
	return c.actOnFactor(ctx, actEnableFactor, account, id, by, (*auth.Factors).Enable)
}

func (c *Core) actOnFactor(ctx context.Context, kind, account, id, by string,
	do func(*auth.Factors, context.Context, string, string, auth.Act, time.Time) (auth.Factor, auth.FactorNotice, error)) (f auth.Factor, err error) {
	if c.Factors == nil {
		return f, ErrNoFactors
	}
	err = c.act(ctx, kind, map[string]string{"account": account, "factor": id, "by": by}, true, func(ctx context.Context, entry string, at time.Time) error {
		f, _, err = do(c.Factors, ctx, account, id, auth.Act{By: by, Entry: entry}, at)
		return err
	})
	if told := c.tellOwners(context.WithoutCancel(ctx)); told != nil {
		c.complain("telling owners", "error", told) // the next sweep does
	}
	if err == nil {
		c.operated(ctx, kind, by, account)
	}
	return f, err
}

// IssueEnrolmentCode makes a code in the name of by that lets whoever has it and the
// password of the account bind a first factor, once and within a day. The one before
// is good for nothing then. The account must have signed in before, and is told that
// there is a code, but not which.
func (c *Core) IssueEnrolmentCode(ctx context.Context, account, by string) (s auth.Slip, code string, err error) {
	if c.Factors == nil {
		return s, "", ErrNoFactors
	}
	_, known, err := c.Directory.BySubject(ctx, account)
	if err != nil {
		return s, "", err
	}
	if !known {
		return s, "", policies.ErrNotFound
	}
	want := auth.Slip{ID: rand.Text(), Purpose: auth.SlipEnrolCode, Subject: account, By: by}
	err = c.act(ctx, actEnrolmentCode, map[string]string{"account": account, "for": account, "slip": want.ID, "by": by}, true, func(ctx context.Context, entry string, at time.Time) error {
		want.Expires = at.Add(enrolmentCodeFor)
		// Before the code is there: a crash in between costs an idle message, and no
		// code that nobody knows of.
		if err := c.mailOwner(ctx, account, "enrolment.code", want.ID, map[string]string{"by": by, "until": moment(want.Expires)}); err != nil {
			return err
		}
		s, code, err = c.Slips.Issue(ctx, want, auth.Act{By: by, Entry: entry}, at)
		return err
	})
	if err == nil {
		c.operated(ctx, actEnrolmentCode, by, account)
	}
	return s, code, err
}

// CancelRecovery stops the recovery of an account that waits, in the name of by.
func (c *Core) CancelRecovery(ctx context.Context, account, by string) (s auth.Slip, err error) {
	if c.Factors == nil {
		return s, ErrNoFactors
	}
	open, err := c.Slips.Open(ctx, account, c.Now())
	if err != nil {
		return s, err
	}
	id := ""
	for _, o := range open {
		if o.Purpose == auth.SlipRecovery {
			id = o.ID
		}
	}
	if id == "" {
		return s, auth.ErrNoSlip
	}
	err = c.act(ctx, actCancelRecovery, map[string]string{"account": account, "recovery": id, "by": by}, true, func(ctx context.Context, entry string, at time.Time) error {
		s, err = c.Slips.Cancel(ctx, id, auth.Act{By: by, Entry: entry}, at)
		return err
	})
	if err == nil {
		c.operated(ctx, actCancelRecovery, by, account)
		if told := c.mailOwner(context.WithoutCancel(ctx), account, "recovery.cancelled", id, map[string]string{"by": by, "at": moment(s.Cancelled)}); told != nil {
			c.complain("nobody was told that a recovery was stopped", "account", account, "error", told)
		}
	}
	return s, err
}
