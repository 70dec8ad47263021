package chatcore

import (
	"context"
	"encoding/base64"
	"fmt"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// mailDir writes each mail to a file of its own, readable by its owner only.
type mailDir string

func (d mailDir) Send(_ context.Context, m chat.Mail) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), m.CreatedAt.UTC().Format("20060102T150405Z")+"-*.eml") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(eml(m, filepath.Base(f.Name())))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// eml is a mail as RFC 5322 writes it.
func eml(m chat.Mail, id string) string {
	var b strings.Builder
	// Addresses were checked when the account was made; a line break in a
	// header would begin another one.
	to := strings.NewReplacer("\r", "", "\n", "").Replace(m.To)
	fmt.Fprintf(&b, "From: no-reply@chat.example\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s@chat.example>\r\n",
		to, mime.BEncoding.Encode("utf-8", m.Subject), m.CreatedAt.UTC().Format(time.RFC1123Z), id)
	fmt.Fprintf(&b, "Content-Language: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n", m.Language)
	body := base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(m.Body, "\n", "\r\n")))
	for len(body) > 76 {
		b.WriteString(body[:76] + "\r\n")
		body = body[76:]
	}
	b.WriteString(body + "\r\n")
	return b.String()
}
