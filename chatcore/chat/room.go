package chat

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

type RoomID int64

// RoomType says who a room is for.
type RoomType string

const (
	My     RoomType = "my"     // one account's notes to itself
	Direct RoomType = "direct" // two accounts
	Group  RoomType = "group"
)

// Role is what a member may do in a room.
type Role string

const (
	Admin    Role = "admin"
	Writer   Role = "member"
	ReadOnly Role = "readonly"
)

// Room is a room as one of its members sees it.
type Room struct {
	ID          RoomID
	Name        string
	Description string
	Type        RoomType
	Icon        string // one of IconPresets, or empty
	Role        Role   // of the member who looks
	Sticky      bool
	Unread      int
	Mentions    int // unread messages addressed to the member who looks
	Messages    int
	UpdatedAt   time.Time
}

// Member is an account's place in a room.
type Member struct {
	Account Account
	Role    Role
}

// IconPresets are the icons a room may ask for.
var IconPresets = []string{"group", "check", "document", "meeting", "event", "project", "business", "study",
	"security", "star", "idea", "heart", "magcup", "beer", "music", "sports", "travel"}

// The bounds of a room.
const (
	RoomNameMax        = 255
	RoomDescriptionMax = 2000
	RoomMembersMax     = 1000
)

// NewRoom is a wish for a room.
type NewRoom struct {
	Name        string
	Description string
	Icon        string // empty means "group"
	Members     Membership
}

// Check reports the first rule r breaks.
func (r NewRoom) Check() error {
	switch n := utf8.RuneCountInString(r.Name); {
	case strings.TrimSpace(r.Name) == "":
		return Errorf(Invalid, "name is required")
	case n > RoomNameMax:
		return Errorf(Invalid, "name must have at most %d characters", RoomNameMax)
	case !plain(r.Name, false):
		return Errorf(Invalid, "name holds control characters")
	case utf8.RuneCountInString(r.Description) > RoomDescriptionMax:
		return Errorf(Invalid, "description must have at most %d characters", RoomDescriptionMax)
	case !plain(r.Description, true):
		return Errorf(Invalid, "description holds control characters")
	case r.Icon != "" && !slices.Contains(IconPresets, r.Icon):
		return Errorf(Invalid, "icon_preset is not one of %s", strings.Join(IconPresets, ", "))
	}
	return r.Members.Check()
}

// Membership is the whole list of a room's members by role.
type Membership struct {
	Admins, Writers, ReadOnly []AccountID
}

// Roles joins each account to its role. An account named twice has the
// strongest role it was named with.
func (m Membership) Roles() map[AccountID]Role {
	roles := map[AccountID]Role{}
	for _, id := range m.ReadOnly {
		roles[id] = ReadOnly
	}
	for _, id := range m.Writers {
		roles[id] = Writer
	}
	for _, id := range m.Admins {
		roles[id] = Admin
	}
	return roles
}

// Check reports the first rule m breaks.
func (m Membership) Check() error {
	switch {
	case len(m.Admins) == 0:
		return Errorf(Invalid, "members_admin_ids is required")
	case len(m.Admins)+len(m.Writers)+len(m.ReadOnly) > RoomMembersMax:
		return Errorf(Invalid, "a room has at most %d members", RoomMembersMax)
	}
	return nil
}

// plain reports whether s is UTF-8 without control characters; lines allows
// line breaks and tabs.
func plain(s string, lines bool) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		if lines && (r == '\n' || r == '\r' || r == '\t') {
			return false
		}
		return unicode.IsControl(r)
	})
}
