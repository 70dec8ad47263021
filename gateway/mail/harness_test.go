package mail_test

import (
	"encoding/base64"
	"io"
	"mime/multipart"
	"mime/quotedprintable"
)

// decode undoes a part's Content-Transfer-Encoding.
func decode(p *multipart.Part) io.Reader {
	if p.Header.Get("Content-Transfer-Encoding") == "base64" {
		return base64.NewDecoder(base64.StdEncoding, p)
	}
	return quotedprintable.NewReader(p)
}
