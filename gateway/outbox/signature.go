package outbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

const (
	minSecret  = 24 // bytes; Standard Webhooks asks for 24 to 64
	maxSecret  = 64
	maxSecrets = 4
)

// parseSecret reads a signing secret as Standard Webhooks writes it: base64 with an
// optional prefix whsec_. Its errors never show it.
func parseSecret(text string) ([]byte, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(strings.TrimSpace(text), "whsec_"))
	switch {
	case err != nil:
		return nil, errors.New("secret: want base64, with or without whsec_ before it: openssl rand -base64 32 makes one")
	case len(key) < minSecret || len(key) > maxSecret:
		return nil, errors.New("secret: want 24 to 64 bytes in base64: openssl rand -base64 32 makes one")
	}
	return key, nil
}

// sign is the webhook-signature of a message: one signature for each secret, so
// that the receiver may change from one to the next. The form is that of Standard
// Webhooks 1.0: v1, and the HMAC-SHA256 of id.timestamp.body in base64.
func sign(secrets [][]byte, id string, timestamp int64, body []byte) string {
	var b strings.Builder
	for i, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + strconv.FormatInt(timestamp, 10) + "."))
		mac.Write(body)
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("v1,")
		b.WriteString(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return b.String()
}
