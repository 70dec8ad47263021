package chat

import "time"

// Mail is a message to somebody's mailbox. Body may hold a secret link, so a
// Mail is never logged.
type Mail struct {
	To        string
	Subject   string
	Body      string
	Language  string
	CreatedAt time.Time
	ExpiresAt time.Time // when the link in it stops working
}
