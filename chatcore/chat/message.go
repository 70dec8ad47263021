package chat

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MessageID grows with every message of the whole service. The API shows it
// as a string.
type MessageID int64

// MessageMax is the longest message, in characters.
const MessageMax = 65535

// Message is one message as it stands now.
type Message struct {
	ID        MessageID
	Room      RoomID
	Account   AccountID
	Name      string // of the account
	Body      string
	SentAt    time.Time
	UpdatedAt time.Time // zero: never edited
}

// CheckBody reports the first rule a message's body breaks.
func CheckBody(body string) error {
	switch {
	case strings.TrimSpace(body) == "":
		return ErrMessageEmpty
	case utf8.RuneCountInString(body) > MessageMax:
		return ErrMessageLong
	case !plain(body, true):
		return Errorf(Invalid, "body holds control characters or is not UTF-8")
	}
	return nil
}

var (
	literal   = regexp.MustCompile(`(?s)\[code\].*?\[/code\]`)
	quotation = regexp.MustCompile(`(?s)\[qt\].*?\[/qt\]`)
	address   = regexp.MustCompile(`(?i)\[(?:To:([0-9]{1,18})|rp aid=([0-9]{1,18})[^\]]*|(toall))\]`)
)

// Addressees are the accounts a body calls by [To:ID] or [rp aid=ID …], and
// whether it calls everybody by [toall]. Code is literal, and a call inside a
// quotation was somebody else's, so neither counts. At most ListMax accounts
// are named.
func Addressees(body string) (ids []AccountID, all bool) {
	if !strings.Contains(body, "[") {
		return nil, false
	}
	body = quotation.ReplaceAllString(literal.ReplaceAllString(body, ""), "")
	seen := map[AccountID]bool{}
	for _, m := range address.FindAllStringSubmatch(body, ListMax) {
		if m[3] != "" {
			all = true
			continue
		}
		n, _ := strconv.ParseInt(m[1]+m[2], 10, 64)
		if id := AccountID(n); !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, all
}
