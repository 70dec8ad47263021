package chat

import "time"

// Credential names what a request was authenticated by, without being able to
// authenticate: the hash of a session's secret, or an API token's number.
type Credential struct {
	Session SecretHash // zero unless a session
	Token   TokenID    // zero unless a token
}

// SecretHash is the SHA-256 of a random secret of at least 128 bits. Such a
// secret cannot be guessed, so one fast hash is enough to keep it from whoever
// reads the database.
type SecretHash [32]byte

type TokenID int64

// Session is a browser that has logged in.
type Session struct {
	Hash      SecretHash
	Account   AccountID
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Token is an API token without its secret.
type Token struct {
	ID        TokenID
	Account   AccountID
	Name      string
	CreatedAt time.Time
}

// The bounds of tokens.
const (
	TokenNameMax = 64
	TokensMax    = 50 // for each account
)

// Caller is who makes a request, and by what credential.
type Caller struct {
	Account    Account
	Credential Credential
	ExpiresAt  time.Time // zero: never
}
