package guard

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
)

// FactorSettings say for whom second factors are.
type FactorSettings struct {
	Service string   // what the service is called in apps and dialogs
	RPID    string   // the domain that passkeys are for
	Origins []string // where people reach the service, such as https://chat.example; the first is for links
	Policy  policies.FactorPolicy
}

// openFactors opens the stores of second factors and held log-ins.
func (c *Core) openFactors(ctx context.Context, store *auth.SQLStore, keys *storage.Keyring, s FactorSettings, now time.Time) (err error) {
	seal := func(label string) auth.FactorSeal {
		shut, open := keys.Box(label)
		return auth.FactorSeal{Seal: shut, Open: open}
	}
	c.origins = s.Origins
	verification := auth.VerifyPreferred
	if s.Policy.UserVerification == string(auth.VerifyRequired) {
		verification = auth.VerifyRequired
	}
	if c.Factors, err = auth.OpenFactors(ctx, store, seal("factor"), auth.FactorsConfig{
		Issuer: s.Service, RPID: s.RPID, Origins: s.Origins, UserVerification: verification,
		StrictTOTP: s.Policy.StrictTOTP, Cap: s.Policy.Cap,
	}, now); err != nil {
		return fmt.Errorf("opening second factors: %w", err)
	}
	if c.Holds, err = auth.OpenHolds(ctx, store, seal("hold"), auth.HoldsConfig{For: s.Policy.Hold}, now); err != nil {
		return fmt.Errorf("opening held log-ins: %w", err)
	}
	if c.Slips, err = auth.OpenSlips(ctx, store, now); err != nil {
		return fmt.Errorf("opening one-time codes: %w", err)
	}
	return nil
}

// sweepFactors forgets what is over and tells owners what nobody told them yet.
func (c *Core) sweepFactors(ctx context.Context, now time.Time) error {
	if c.Factors == nil {
		return nil
	}
	_, err := c.Factors.Sweep(ctx, now)
	_, err2 := c.Holds.Sweep(ctx, now)
	_, err3 := c.Slips.Sweep(ctx, now)
	return errors.Join(err, err2, err3, c.newDesk(pages.Site{}).Ripen(ctx, now), c.tellOwners(ctx))
}

// ownerNotices names the message that tells of each kind of notice. Kinds that are
// missing are for the record alone.
var ownerNotices = map[auth.FactorNoticeKind]string{
	auth.FactorBound:         "factor.added",
	auth.FactorRemoved:       "factor.removed",
	auth.FactorWasDisabled:   "factor.suspended",
	auth.FactorThrottled:     "factor.disabled",
	auth.FactorWasEnabled:    "factor.enabled",
	auth.FactorGuessed:       "factor.guessed",
	auth.FactorCloned:        "key.cloned",
	auth.RecoveryCodeUsed:    "recovery.used",
	auth.RecoveryCodesVoided: "recovery.replaced",
	auth.HoldUnanswered:      "signin.unanswered",
	auth.HoldWasDenied:       "signin.denied",
}

// tellOwners hands what owners are to be told to the outbox. Its keys are those of
// the notices, so that what several nodes hand over, or one does twice because it
// crashed in between, is told once.
func (c *Core) tellOwners(ctx context.Context) error {
	all, err := c.Factors.Untold(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	told := make([]string, 0, len(all))
	for _, n := range all {
		if err := c.tellOwner(ctx, n); err != nil {
			return errors.Join(err, c.Factors.Told(ctx, told...))
		}
		told = append(told, n.ID)
	}
	return c.Factors.Told(ctx, told...)
}

func (c *Core) tellOwner(ctx context.Context, n auth.FactorNotice) error {
	template, ok := ownerNotices[n.Kind]
	if !ok {
		return nil
	}
	key, day := n.ID, n.Subject+"/"+n.At.UTC().Format(time.DateOnly)
	switch n.Kind {
	// Whoever tries a stolen password tries it again, and may deny it himself: the
	// owner is told once a day.
	case auth.HoldUnanswered:
		key = "unanswered/" + day
	case auth.HoldWasDenied:
		key = "denied/" + day
	}
	if n.FactorKind == auth.RecoveryCodes {
		n.Name = "" // their owner gave them none
	}
	values := map[string]string{
		"factor": string(n.FactorKind), "name": n.Name, "client": n.Client, "country": n.Country, "at": moment(n.At),
	}
	return c.mailOwner(ctx, n.Subject, template, key, values)
}

// mailOwner puts a message for every address of an account into the outbox, once for
// each key. Without mail, or an address, there is nobody to tell.
func (c *Core) mailOwner(ctx context.Context, subject, template, key string, values map[string]string) error {
	if !c.Mailing.Load() {
		return nil
	}
	person, known, err := c.Directory.BySubject(ctx, subject)
	if err != nil || !known {
		return err
	}
	all := map[string]string{"account": accountName(person), "language": person.Language, "time_zone": person.TimeZone}
	for name, value := range values {
		all[name] = value
	}
	for name, value := range all {
		if value == "" {
			delete(all, name)
		}
	}
	for _, address := range person.Mail {
		to := c.Digest("address", address)
		n := policies.Notice{
			Key: template + "/" + key + "/" + base64.RawURLEncoding.EncodeToString(to[:]), Channel: mailChannel, Template: template, To: address, Values: all,
		}
		_, err := c.Outbox.Put(ctx, n, c.Now())
		var bad policies.FieldErrors
		if errors.As(err, &bad) {
			// Such as an address that the backend made up: the others are told all the same.
			c.complain("an owner cannot be told by mail", "account", subject, "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mailChannel is the channel of notices to people.
const mailChannel = "mail"

// accountName is what to call an account.
func accountName(p auth.Person) string {
	if len(p.Names) > 0 {
		return p.Names[0]
	}
	return p.Subject
}

// origin is where the person of a request reaches the service: one of the origins
// that are configured, never what the request says.
func (c *Core) origin(r *http.Request) string {
	for _, o := range c.origins {
		if u, err := url.Parse(o); err == nil && strings.EqualFold(u.Host, r.Host) {
			return o
		}
	}
	return c.origins[0]
}

// csrfToken is what forms of ours carry to show that they were made for the holder
// of a secret (SP 800-63B-4 section 5.1).
func (c *Core) csrfToken(secret string) string {
	d := c.Digest("csrf", secret)
	return base64.RawURLEncoding.EncodeToString(d[:])
}

func (c *Core) csrfGood(token, secret string) bool {
	if secret == "" {
		return false
	}
	good := 0
	for _, d := range c.Digests("csrf", secret) {
		good |= subtle.ConstantTimeCompare([]byte(token), []byte(base64.RawURLEncoding.EncodeToString(d[:])))
	}
	return good == 1
}

// sameOrigin reports whether a form was sent from a page of the service itself, as
// far as the browser says so. Old ones say nothing; the form's token speaks then.
func (c *Core) sameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	from := r.Header["Origin"]
	if len(from) == 0 {
		return true
	}
	if len(from) > 1 {
		return false
	}
	u, err := url.Parse(from[0])
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
