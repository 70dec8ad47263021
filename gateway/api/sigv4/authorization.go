package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxAuthorization = 4096 // bytes of the header's value
	maxSignedHeaders = 64
	maxName          = 128 // bytes of a part of the credential scope
)

// authorization is the Authorization header in parts.
type authorization struct {
	accessKeyID   string
	day           string // yyyymmdd
	region        string
	service       string
	signedHeaders []string // lower case, ascending, each once; with host
	signature     [sha256.Size]byte
}

// scope is the credential scope.
func (a *authorization) scope() string {
	return a.day + "/" + a.region + "/" + a.service + "/" + terminator
}

// String is the header's value, as libraries write it.
func (a *authorization) String() string {
	return algorithm + " Credential=" + a.accessKeyID + "/" + a.scope() +
		", SignedHeaders=" + strings.Join(a.signedHeaders, ";") + ", Signature=" + hex.EncodeToString(a.signature[:])
}

// parseAuthorization reads the header's value: the algorithm, then Credential,
// SignedHeaders and Signature, each once, in any order, with commas between. Its
// errors do not repeat the signature.
func parseAuthorization(value string) (authorization, error) {
	var a authorization
	if len(value) > maxAuthorization {
		return a, fmt.Errorf("has %d bytes: at most %d", len(value), maxAuthorization)
	}
	rest, ok := strings.CutPrefix(value, algorithm+" ")
	if !ok {
		return a, errors.New("want " + algorithm + " and a space first")
	}
	var have [3]bool
	once := func(i int, name string) error {
		if have[i] {
			return fmt.Errorf("%s is given twice", name)
		}
		have[i] = true
		return nil
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, text, _ := strings.Cut(strings.Trim(part, " "), "=")
		var err error
		switch name {
		case "Credential":
			if err = once(0, name); err == nil {
				err = a.parseCredential(text)
			}
		case "SignedHeaders":
			if err = once(1, name); err == nil {
				err = a.parseSignedHeaders(text)
			}
		case "Signature":
			if err = once(2, name); err == nil && !isHexHash(text) {
				err = fmt.Errorf("the Signature is not %d digits of lower-case hex", 2*sha256.Size)
			}
			if err == nil {
				_, err = hex.Decode(a.signature[:], []byte(text))
			}
		default:
			err = errors.New("want Credential=, SignedHeaders= and Signature=, with commas between, and nothing else")
		}
		if err != nil {
			return authorization{}, err
		}
	}
	for i, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if !have[i] {
			return authorization{}, fmt.Errorf("%s is missing", name)
		}
	}
	return a, nil
}

func (a *authorization) parseCredential(text string) error {
	parts := strings.Split(text, "/")
	if len(parts) != 5 || parts[4] != terminator {
		return errors.New("the Credential is not of the form KEYID/YYYYMMDD/REGION/SERVICE/" + terminator)
	}
	for i, what := range []string{"access key id", "day", "region", "service"} {
		if parts[i] == "" || len(parts[i]) > maxName || strings.IndexFunc(parts[i], notName) >= 0 {
			return fmt.Errorf("the %s in Credential is not 1 to %d letters, digits, dots, dashes or underscores", what, maxName)
		}
	}
	if len(parts[1]) != 8 || strings.Trim(parts[1], "0123456789") != "" {
		return errors.New("the day in Credential is not of the form YYYYMMDD")
	}
	a.accessKeyID, a.day, a.region, a.service = parts[0], parts[1], parts[2], parts[3]
	return nil
}

func notName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
}

func (a *authorization) parseSignedHeaders(text string) error {
	names := strings.Split(text, ";")
	if len(names) > maxSignedHeaders {
		return fmt.Errorf("the list SignedHeaders has %d names: at most %d", len(names), maxSignedHeaders)
	}
	for i, name := range names {
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.!#$%&'*+^`|~") != "" {
			return errors.New("the list SignedHeaders must be names of headers in lower case with semicolons between")
		}
		if i > 0 && names[i-1] >= name {
			return errors.New("the list SignedHeaders must be in ascending order, each name once")
		}
	}
	if !slices.Contains(names, "host") {
		return errors.New("the list SignedHeaders must include host")
	}
	a.signedHeaders = names
	return nil
}
