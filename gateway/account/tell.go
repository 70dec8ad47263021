package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strings"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/policies"
)

const (
	mailChannel = "mail"
	addressMax  = 254 // bytes (RFC 5321 section 4.5.3.1.3, without the brackets)

	linkTemplate      = "enrolment.link"
	codeTemplate      = "enrolment.code"
	begunTemplate     = "recovery.begun"
	readyTemplate     = "recovery.ready"
	cancelledTemplate = "recovery.cancelled"
)

// addresses are those at which an account can be told something: none if there is no
// mail server.
func (d *Desk) addresses(p auth.Person) (all []string) {
	if !d.Mailing {
		return nil
	}
	for _, a := range p.Mail {
		if at := strings.LastIndexByte(a, '@'); at > 0 && at < len(a)-1 && len(a) <= addressMax {
			all = append(all, a)
		}
	}
	return all
}

// message is what an account is told by mail. The key says of what, and is the same
// for each attempt.
type message struct {
	template string
	key      string
	values   map[string]string
}

// notice is a message to one address, for the outbox.
func (m message) notice(p auth.Person, name, to string) policies.Notice {
	values := map[string]string{"account": name, "language": p.Language, "time_zone": p.TimeZone}
	if name == "" {
		values["account"] = p.Subject
	}
	maps.Copy(values, m.values)
	for key, value := range values {
		if value == "" {
			delete(values, key)
		}
	}
	return policies.Notice{Key: m.template + "/" + m.key + "/" + digest(to), Channel: mailChannel, Template: m.template, To: to, Values: values}
}

// tell puts a message to each of the addresses into the outbox.
func (d *Desk) tell(ctx context.Context, p auth.Person, name string, to []string, m message, now time.Time) error {
	for _, a := range to {
		if _, err := d.Outbox.Put(ctx, m.notice(p, name, a), now); err != nil {
			return err
		}
	}
	return nil
}

// tell tells the account of the visit, with where the visit is from.
func (q *request) tell(ctx context.Context, to []string, m message, now time.Time) error {
	p, m := q.reader(m)
	return q.d.tell(ctx, p, q.name(), to, m, now)
}

// reader is who reads m, and m with where the visit is from. Who has no language in
// the directory is told in that of the page.
func (q *request) reader(m message) (auth.Person, message) {
	p := q.Person
	p.Subject = q.Subject
	if p.Language == "" {
		p.Language = q.Language
	}
	values := map[string]string{"client": q.Client}
	if q.place(q.Country) != "" {
		values["country"] = q.Country
	}
	maps.Copy(values, m.values)
	m.values = values
	return p, m
}

// digest stands for a text in keys, which are bounded.
func digest(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:16])
}

// told is how many messages of that template the address got about the account since
// then; many is not counted.
func (q *request) told(template, to string, since time.Time, many int) (n int, err error) {
	some, _, err := q.d.Outbox.List(q.ctx(), policies.NoticeFilter{Channel: mailChannel, Template: template, To: to}, "", 200)
	if err != nil {
		return 0, err
	}
	prefix := template + "/" + digest(q.Subject) + "/"
	for _, notice := range some {
		if notice.Created.After(since) && strings.HasPrefix(notice.Key, prefix) && n < many {
			n++
		}
	}
	return n, nil
}
