package guard

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/attempt"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// target is one address or name that a request would have the backend write to.
type target struct {
	typed            // as a login with it is counted
	mailbox [16]byte // what its limit is counted under
}

// readTargets reads whom the request would have the backend write to. One that can be
// read in more than one way is refused: a person's client sends none such.
func (v *visit) readTargets(q *counted) *refusal {
	g := v.guard
	reader := q.reader(g)
	at, err := reader.Read(v.r)
	q.size = at.Size
	if errors.Is(err, attempt.ErrTooLarge) && v.session != nil && !q.form.Uniform {
		return nil // who it is that sends a picture along is known, and draws from buckets too
	}
	if err != nil {
		if refusal := v.unreadable(ControlLimits, g.modes.limits, err); refusal != nil {
			return refusal
		}
	}
	q.ambiguous = v.twofold(q, reader.NameFields, at)
	seen, addresses := make(map[[16]byte]bool), 0
	for _, p := range at.Pairs {
		for _, m := range mailboxes(p.Name) {
			key := g.Digest("target", m.folded)
			if seen[key] {
				continue
			}
			if len(q.targets) == attempt.MaxPairs {
				return v.unreadable(ControlLimits, g.modes.limits, attempt.ErrTooMany)
			}
			seen[key] = true
			if strings.Contains(m.folded, "@") {
				addresses++
			}
			all := g.nameDigests(m.name)
			q.targets = append(q.targets, target{typed{name: detectors.Name{Digest: all[0]}, old: all[1:]}, key})
		}
	}
	if q.class == detectors.Reset && addresses > 1 {
		q.ambiguous = true // one password is forgotten at a time
	}
	if !q.ambiguous {
		return nil
	}
	refusal := v.conclude(ControlLimits, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonAmbiguous}, g.modes.limits)
	if refusal != nil {
		refusal.status = http.StatusBadRequest
	}
	return refusal
}

// twofold reports whether a request can be read in more than one way as to whom it
// would have written to. Several addresses are invited at once. Fields that the preset
// does not name may be anywhere, in any spelling; two of them that differ are an
// address and a name.
func (v *visit) twofold(q *counted, fields []string, at attempt.Attempt) bool {
	switch at.Why {
	case "", attempt.None:
		return false
	case attempt.Place, attempt.Spelling:
		return q.form.Named()
	case attempt.Array:
		return q.class != detectors.Invite
	case attempt.Duplicate:
		if len(fields) == 1 {
			return true
		}
		return slices.ContainsFunc(fields, func(field string) bool {
			one, err := attempt.Reader{NameFields: []string{field}, MaxBody: v.guard.reader.MaxBody}.Read(v.r)
			return err != nil || v.twofold(q, []string{field}, one)
		})
	}
	return true
}

// mailbox is whom something is mailed to.
type mailbox struct {
	name   string // canonical
	folded string // and without what many services deliver to the same mailbox: "+" and what follows it, dots in front of the "@"
}

// mailboxes are those that a field names. It may hold several addresses, with names
// and brackets around them (RFC 5322 section 3.4); what holds none is a name of its
// own. One more than a request may carry are looked for.
func mailboxes(field string) (all []mailbox) {
	for piece := range strings.FieldsFuncSeq(field, between) {
		name := auth.CanonicalName(piece)
		local, domain, ok := cutLast(name, "@")
		if !ok || local == "" || domain == "" {
			continue
		}
		m := mailbox{name, name}
		plain, _, _ := strings.Cut(local, "+")
		if plain = strings.ReplaceAll(plain, ".", ""); plain != "" {
			m.folded = auth.CanonicalName(plain + "@" + strings.TrimRight(domain, "."))
		}
		if all = append(all, m); len(all) > attempt.MaxPairs {
			return all
		}
	}
	if name := auth.CanonicalName(field); len(all) == 0 && name != "" {
		return []mailbox{{name, name}}
	}
	return all
}

// between reports whether r stands between addresses or around one.
func between(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`,;:<>"()`, r) }

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
