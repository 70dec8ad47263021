// Package chat holds what a business chat is about: organizations, accounts,
// rooms, messages and the events that tell of them, with the rules that need
// no storage and no network.
//
// Values are plain structs, passed by value. Identifiers have their own types
// so that a room is never mistaken for an account. Failures a client may hear
// about are [Error] values with a [Kind]. The package opens nothing, keeps no
// state and never asks for the time.
package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// ListMax bounds every list the service answers with.
const ListMax = 100

type (
	OrganizationID int64
	AccountID      int64
)

// Account is a person's place in one organization. It never carries the
// password's hash.
type Account struct {
	ID               AccountID
	Organization     OrganizationID
	OrganizationName string
	MyRoom           RoomID // the room only this account is in
	Email            string // as written by its owner
	Name             string
	Handle           string // the API's chatwork_id
	Department       string
	Title            string
	Language         string // "ja" or "en"
	TimeZone         string // IANA name
}

// EmailMax is the longest address taken, in bytes (RFC 5321, 4.5.3.1.3).
const EmailMax = 254

// EmailKey is the form under which addresses are compared: trimmed, NFKC and
// case-folded, so that full-width letters and capitals reach the same account.
func EmailKey(email string) string {
	// Folding alone swaps the two cases of Cherokee, so the lower one is taken.
	folded := strings.ToLower(cases.Fold().String(norm.NFKC.String(strings.TrimSpace(email))))
	// Folding can leave text that NFKC would change again.
	return strings.TrimSpace(norm.NFKC.String(folded))
}

// The bounds of a new password, in characters.
const (
	PasswordMin = 8
	PasswordMax = 256
)

// NewPassword checks a password somebody wishes to use from now on and
// returns it as it is to be hashed; see [PasswordKey].
func NewPassword(password string) (string, error) {
	key := PasswordKey(password)
	switch n := utf8.RuneCountInString(key); {
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return "", ErrPasswordText
	case n < PasswordMin:
		return "", ErrPasswordShort
	case n > PasswordMax:
		return "", ErrPasswordLong
	}
	return key, nil
}

// PasswordKey is the form under which passwords are hashed: NFC, because some
// systems type が as one character and others as two (RFC 8265, 4.2.2). It
// never fails: text that cannot be a password simply matches none.
func PasswordKey(password string) string { return norm.NFC.String(password) }
