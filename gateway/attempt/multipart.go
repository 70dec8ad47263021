package attempt

import (
	"encoding/base64"
	"io"
	"mime/multipart"
	"mime/quotedprintable"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxBoundaries is how many boundaries of one declaration are followed; nothing
// honest declares two.
const maxBoundaries = 8

// maxParts is where net/http stops, too (multipartmaxparts); it then takes
// nothing at all.
const maxParts = 1000

// unfold joins header lines that continue on the next.
var unfold = strings.NewReplacer("\r\n ", " ", "\r\n\t", " ", "\n ", " ", "\n\t", " ")

// multipart finds fields in a multipart body: with every boundary that was
// declared or that the body begins with, read once by the rules and once without
// them. It tells what breaks the rules and whether there was anything to read.
func (c *collector) multipart(text string, d doubt, t mediaType) (faults doubt, found bool) {
	boundaries := t.boundaries
	if start := strings.TrimLeft(text, " \t\r\n"); strings.HasPrefix(start, "--") {
		line, _, _ := strings.Cut(start[2:], "\n")
		boundaries = append(slices.Clip(boundaries), strings.TrimRight(line, " \t\r"))
	} else if t.kind != multipartType {
		return 0, false
	}
	var done []string
	for i, b := range boundaries {
		if b == "" || slices.Contains(done, b) || !strings.Contains(text, "--"+b) {
			continue
		}
		if len(done) == maxBoundaries {
			return faults | ofSyntax, found
		}
		done = append(done, b)
		found = true
		guessed := d
		if i > 0 || len(t.boundaries) == 0 {
			guessed |= ofSyntax
		}
		faults |= c.strictParts(text, b, guessed)
		faults |= c.laxParts(text, b, d|ofSyntax)
	}
	return faults, found
}

// strictParts reads parts as net/http does.
func (c *collector) strictParts(text, boundary string, d doubt) (faults doubt) {
	source := strings.NewReader(text)
	reader := multipart.NewReader(source, boundary)
	for range maxParts {
		p, err := reader.NextPart()
		if err == io.EOF {
			return faults
		}
		if err != nil {
			return faults | ofSyntax
		}
		value, err := io.ReadAll(p)
		if err != nil {
			faults |= ofSyntax
		}
		this := d
		if p.FileName() != "" {
			this |= ofPlace
		}
		if !utf8.Valid(value) {
			this |= ofUTF8
		}
		c.flat(p.FormName(), string(value), this)
	}
	return faults | ofSyntax
}

// laxParts takes everything between two delimiters for a part, whatever follows
// the last, and every name that its header could be read to give.
func (c *collector) laxParts(text, boundary string, d doubt) (faults doubt) {
	parts := strings.Split(text, "--"+boundary)
	if strings.Trim(parts[0], " \t\r\n") != "" {
		faults |= ofSyntax
	}
	closed := false
	for _, part := range parts[1:] {
		if closed {
			faults |= ofTrailing
		}
		if rest, ok := strings.CutPrefix(part, "--"); ok {
			closed = true
			if strings.Trim(rest, " \t\r\n") != "" {
				faults |= ofTrailing
			}
		}
		header, value := cutHeader(part)
		value = strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r")
		names, transfer, file, charset := partHeader(header)
		this := d
		if file {
			this |= ofPlace
		}
		for _, name := range names {
			c.flat(name, value, this)
			if transfer {
				if b, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(value))); err == nil {
					c.flat(name, string(b), this)
				}
				if b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value)); err == nil {
					c.flat(name, string(b), this)
				}
			}
			if charset != "" {
				if v, ok := decode(value, charset); ok {
					c.flat(name, v, this|ofCharset)
				}
			}
			if name == "_charset_" && !isUTF8(value) {
				faults |= ofCharset
			}
		}
		if transfer {
			faults |= ofSyntax // forms have none since RFC 7578
		}
		if charset != "" {
			faults |= ofCharset
		}
	}
	if !closed {
		faults |= ofSyntax
	}
	return faults
}

// cutHeader divides a part at its first empty line.
func cutHeader(part string) (header, body string) {
	for i := 0; i < len(part); i++ {
		if part[i] != '\n' {
			continue
		}
		rest := strings.TrimPrefix(part[i+1:], "\r")
		if strings.HasPrefix(rest, "\n") {
			return part[:i], rest[1:]
		}
	}
	return part, ""
}

// partHeader reads a part's header: all field names it could give, whether it
// has a transfer encoding, whether it is a file, and a character set other than
// UTF-8.
func partHeader(header string) (names []string, transfer, file bool, charset string) {
	header = unfold.Replace(header)
	for line := range strings.SplitSeq(header, "\n") {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r"), ":")
		if !ok {
			continue
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "content-disposition":
			_, rest, _ := strings.Cut(value, ";")
			for _, p := range parameters(rest) {
				name := p.value
				switch p.key {
				case "filename", "filename*":
					file = true
					continue
				case "name*": // RFC 5987: charset'language'percent-encoded
					if parts := strings.SplitN(name, "'", 3); len(parts) == 3 {
						name = parts[2]
					}
					name, _ = unescape(strings.ReplaceAll(name, "+", "%2B"), false)
				case "name":
				default:
					continue
				}
				names = append(names, name)
				if plain, _ := unescape(strings.ReplaceAll(name, "+", "%2B"), false); plain != name {
					names = append(names, plain) // browsers write %22 for a quote
				}
			}
		case "content-transfer-encoding":
			transfer = transfer || strings.TrimSpace(value) != ""
		case "content-type":
			_, rest, _ := strings.Cut(value, ";")
			for _, p := range parameters(rest) {
				if p.key == "charset" && !isUTF8(p.value) {
					charset = p.value
				}
			}
		}
	}
	return names, transfer, file, charset
}
