package chat

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. The zero value, Internal, is
// every failure nobody gave a kind: its cause is logged and never shown.
type Kind int

// The kinds of failure. The HTTP package holds the one table that joins each
// to a status.
const (
	Internal        Kind = iota
	Invalid              // the request makes no sense as written
	Unauthenticated      // no credential, or not a good one
	Forbidden            // a good credential without this right
	NotFound             // nothing there, or nothing the caller may know of
	Conflict             // it clashes with what is already stored
	Gone                 // it was there, and is not any more
	TooLarge             // more bytes than the bound
	Unsupported          // a content type nobody reads here
	Unavailable          // full or stopping; the same request may work later
)

// Error is a failure the client may hear about: Message is shown as it is, so
// it never holds a secret or another organization's data.
type Error struct {
	Kind    Kind
	Message string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// KindOf is the kind of the first Error in err's chain, or Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Failures that callers tell apart.
var (
	ErrLogin         = Errorf(Unauthenticated, "Invalid email or password")
	ErrCredential    = Errorf(Unauthenticated, "Invalid API token")
	ErrPasswordWrong = Errorf(Forbidden, "The current password is not right")
	ErrPasswordShort = Errorf(Invalid, "The password must have at least %d characters", PasswordMin)
	ErrPasswordLong  = Errorf(Invalid, "The password must have at most %d characters", PasswordMax)
	ErrPasswordText  = Errorf(Invalid, "The password must be valid UTF-8 without control characters")
	ErrResetGone     = Errorf(Gone, "The link has expired or was used already")
	ErrCursorTooOld  = Errorf(Gone, "The cursor is too old; reload and start again without it")
	ErrMessageEmpty  = Errorf(Invalid, "body is required")
	ErrMessageLong   = Errorf(Invalid, "body must have at most %d characters", MessageMax)
	ErrRoomNotFound  = Errorf(NotFound, "There is no such room")
	ErrReadOnly      = Errorf(Forbidden, "You may read this room but not write to it")
	ErrNotAdmin      = Errorf(Forbidden, "Only administrators of the room may do this")
)
