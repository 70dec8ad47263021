// Package sigv4 verifies requests signed with AWS Signature Version 4 in their
// Authorization header, as curl (--aws-sigv4), Postman and the AWS libraries do.
// It verifies only; nothing here signs, and nothing talks to AWS.
//
// What it holds to (the procedure is published as "AWS Signature Version 4 for
// API requests"):
//
//   - The signed headers include host and the date: x-amz-date where the request
//     has one, else date. The date is within [Window] of our clock, and the day of
//     the credential scope is its day.
//   - The body is hashed here. Where the request states x-amz-content-sha256, that
//     must be the hash. Unsigned and streamed payloads are refused.
//   - The path counts in the form for services other than S3 (each segment encoded
//     once more, with dot segments and empty segments removed or kept), and as it
//     was sent: curl 7.88 signs it so. As sent, it may not have an encoded percent
//     sign, so that one signature never fits two paths of different meaning.
//   - The query counts sorted, and as it was sent: curl 7.88 does not sort.
//   - A signature is good once within its window ([Replay]).
//   - The form that carries the signature in the query is refused, since such
//     addresses end up in logs and histories.
//
// A session token (x-amz-security-token) means nothing here: it is a header like
// any other and counts when it is signed.
//
// Whether the key is unknown or the signature wrong, the same work is done and the
// same is said.
package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	isoBasic   = "20060102T150405Z"

	// Window is how far the date of a request may be from our clock, either side.
	Window = 5 * time.Minute
)

// Reason is why a request was refused, of a closed set.
type Reason string

const (
	Unsigned   Reason = "unsigned"    // no Authorization header with our algorithm
	Presigned  Reason = "presigned"   // the signature is in the query
	Malformed  Reason = "malformed"   // the header, or what it names, is not of the form
	WrongScope Reason = "wrong_scope" // a service that is not served here
	WrongDate  Reason = "wrong_date"  // outside of the window
	WrongBody  Reason = "wrong_body"  // not what x-amz-content-sha256 says, or not signed
	Mismatch   Reason = "mismatch"    // the signature is not right, or the key is unknown
	Replayed   Reason = "replayed"    // the signature was used before
)

// Refusal says why a request was refused. Its text may be shown to the client: it
// holds nothing secret and does not tell an unknown key from a wrong signature.
type Refusal struct {
	Reason Reason
	Detail string
}

func (e *Refusal) Error() string { return e.Detail }

func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// ErrReplayUnknown says that nobody can tell now whether a signature was used.
var ErrReplayUnknown = errors.New("whether the signature was used before is not known now")

// Replay remembers signatures until they are too old to be used. It is safe for
// concurrent use.
type Replay interface {
	// Seen reports whether the signature was seen before, and remembers it until
	// then. Of several calls with one signature, on whichever node, exactly one
	// hears false. One that cannot remember returns an error rather than forget.
	Seen(ctx context.Context, signature string, until time.Time) (bool, error)
}

// Verifier verifies requests. All fields are required.
type Verifier struct {
	// Services are the names a signature may be made for.
	Services []string
	// Secret is the secret key that belongs to an access key id.
	Secret func(accessKeyID string) (secret string, known bool)
	Replay Replay
	Now    func() time.Time
}

// Signed is a claim that a request makes in its headers, not verified yet.
type Signed struct {
	verifier  *Verifier
	auth      authorization
	date      time.Time
	headers   string // canonical
	paths     []string
	queries   []string
	method    string
	bodyHash  string // as stated; empty: not stated
	secret    string
	keyIsOurs bool
}

// AccessKeyID is the key that the request claims to be signed with.
func (s *Signed) AccessKeyID() string { return s.auth.accessKeyID }

// Claim reads what r claims without touching its body, and refuses with a
// [Refusal] what could not be accepted whatever the body is.
func (v *Verifier) Claim(r *http.Request) (*Signed, error) {
	path, query := target(r)
	if presigned(query) {
		return nil, refuse(Presigned, "a signature in the query (X-Amz-Signature) is not accepted: sign in the Authorization header")
	}
	values := r.Header.Values("Authorization")
	if len(values) != 1 || !strings.HasPrefix(values[0], algorithm) {
		return nil, refuse(Unsigned, "the request is not signed: send one Authorization header of the form %s Credential=..., SignedHeaders=..., Signature=...", algorithm)
	}
	auth, err := parseAuthorization(values[0])
	if err != nil {
		return nil, refuse(Malformed, "Authorization: %v", err)
	}
	if !slices.Contains(v.Services, auth.service) {
		return nil, refuse(WrongScope, "the signature is for the service %q: sign for %q", auth.service, v.Services[0])
	}
	date, err := signedDate(r, auth.signedHeaders)
	if err != nil {
		return nil, refuse(Malformed, "%v", err)
	}
	if date.Format("20060102") != auth.day {
		return nil, refuse(Malformed, "the day of the credential scope, %s, is not that of the request's date", auth.day)
	}
	now := v.Now()
	if now.Sub(date) > Window || date.Sub(now) > Window {
		return nil, refuse(WrongDate, "the request was signed at %s and it is %s here: at most %s may lie between", date.Format(time.RFC3339), now.UTC().Format(time.RFC3339), Window)
	}
	stated := r.Header.Values("X-Amz-Content-Sha256")
	switch {
	case len(stated) > 1:
		return nil, refuse(Malformed, "x-amz-content-sha256 is given %d times", len(stated))
	case len(stated) == 1 && !isHexHash(stated[0]):
		return nil, refuse(WrongBody, "x-amz-content-sha256 must be the SHA-256 of the body in lower-case hex: unsigned and streamed payloads are not accepted")
	}
	headers, err := canonicalHeaders(r, auth.signedHeaders)
	if err != nil {
		return nil, refuse(Malformed, "%v", err)
	}
	s := &Signed{
		verifier: v, auth: auth, date: date, headers: headers, method: r.Method,
		paths: canonicalPaths(path), queries: canonicalQueries(query),
	}
	if len(stated) == 1 {
		s.bodyHash = stated[0]
	}
	s.secret, s.keyIsOurs = v.Secret(auth.accessKeyID)
	if !s.keyIsOurs {
		s.secret = "the secret of nobody at all, of common length"
	}
	return s, nil
}

// Verify returns nil if the request with this body was signed with the key it
// claims and comes for the first time. It returns a [Refusal], or an error that
// wraps [ErrReplayUnknown].
func (s *Signed) Verify(ctx context.Context, body []byte) error {
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if s.bodyHash != "" && subtle.ConstantTimeCompare([]byte(s.bodyHash), []byte(hash)) != 1 {
		return refuse(WrongBody, "the body is not the one that x-amz-content-sha256 states")
	}
	key := signingKey(s.secret, s.auth.day, s.auth.region, s.auth.service)
	right := 0
	for _, path := range s.paths {
		for _, query := range s.queries {
			request := s.method + "\n" + path + "\n" + query + "\n" + s.headers + "\n" + strings.Join(s.auth.signedHeaders, ";") + "\n" + hash
			sum := sha256.Sum256([]byte(request))
			mac := sign(key, algorithm+"\n"+s.date.Format(isoBasic)+"\n"+s.auth.scope()+"\n"+hex.EncodeToString(sum[:]))
			right |= subtle.ConstantTimeCompare(mac, s.auth.signature[:])
		}
	}
	known := 0
	if s.keyIsOurs {
		known = 1
	}
	if right&known != 1 {
		return refuse(Mismatch, "the signature does not belong to this request: check the key, the secret, and that method, host, path, query, headers and body are sent as they were signed")
	}
	seen, err := s.verifier.Replay.Seen(ctx, hex.EncodeToString(s.auth.signature[:]), s.date.Add(Window))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReplayUnknown, err)
	}
	if seen {
		return refuse(Replayed, "this signature was used before: sign each call anew; two equal calls need different seconds")
	}
	return nil
}

// Verify is Claim and Verify in one, for callers that have the body already.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, body []byte) (accessKeyID string, err error) {
	s, err := v.Claim(r)
	if err != nil {
		return "", err
	}
	if err := s.Verify(ctx, body); err != nil {
		return "", err
	}
	return s.AccessKeyID(), nil
}

func signingKey(secret, day, region, service string) []byte {
	return sign(sign(sign(sign([]byte("AWS4"+secret), day), region), service), terminator)
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func isHexHash(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}
