package mail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"github.com/kidoban/kidoban/policies"
)

// maxMessage is far more than any message has. Values are bounded; see clean.
const maxMessage = 64 << 10 // bytes

// compose writes the message that tells to of n, as RFC 5322 has it.
func (m *Mailer) compose(to Address, n policies.Notice) ([]byte, error) {
	l, err := m.write(n)
	if err != nil {
		return nil, err
	}
	page, err := l.html()
	if err != nil {
		return nil, err
	}
	encoding := gomail.EncodingQP
	if l.Language == "ja" { // three bytes a letter: shorter so
		encoding = gomail.EncodingB64
	}
	id := m.messageID(n)
	boundary := sha256.Sum256([]byte(id))
	msg := gomail.NewMsg(gomail.WithEncoding(encoding), gomail.WithBoundary(hex.EncodeToString(boundary[:16])), gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(&m.from)
	if err := msg.To(to.String()); err != nil {
		return nil, errAddress
	}
	msg.Subject(fmt.Sprintf("[%s] %s", m.service, l.Title))
	msg.SetDateWithValue(n.Created.UTC())
	msg.SetMessageIDWithValue(id)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 section 5
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")  // Exchange's
	msg.SetGenHeader("Content-Language", l.Language)     // RFC 3282
	msg.SetGenHeader("X-Kidoban-Notice", n.Template)     // for filters; one of Templates
	msg.SetBodyString(gomail.TypeTextPlain, l.plain())
	msg.AddAlternativeString(gomail.TypeTextHTML, page)
	var out bytes.Buffer
	if _, err := msg.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("the message cannot be written: %w", err)
	}
	if out.Len() > maxMessage {
		return nil, fmt.Errorf("the message has %d bytes, at most %d are sent", out.Len(), maxMessage)
	}
	return out.Bytes(), nil
}

// messageID is the notice's own, with a domain that is ours: the same in every
// attempt, so that the other side can tell a repetition.
func (m *Mailer) messageID(n policies.Notice) string {
	left, _, _ := strings.Cut(strings.Trim(n.MessageID, "<>"), "@")
	for _, c := range []byte(left) {
		if c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			left = ""
			break
		}
	}
	if left == "" || len(left) > 128 { // never of this outbox
		sum := sha256.Sum256([]byte(n.Key))
		left = hex.EncodeToString(sum[:16])
	}
	return left + "@" + m.domain
}
