package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// Load is a whole world to be stored at once, in an empty file.
type Load struct {
	Organizations []LoadOrganization
}

// LoadOrganization is one organization with everything in it.
type LoadOrganization struct {
	Name     string
	Accounts []LoadAccount
	Rooms    []LoadRoom
}

// LoadAccount is an account and its password's hash. Account's numbers are
// set by Load.
type LoadAccount struct {
	Account  chat.Account
	Password string
}

// LoadRoom is a group room. Members and authors are positions in the
// organization's Accounts; the first member is its administrator.
type LoadRoom struct {
	Name, Description, Icon string
	Members                 []int
	Messages                []LoadMessage
}

// LoadMessage is a message in a LoadRoom, in the order of sending. Everybody
// has read it; no event tells of it.
type LoadMessage struct {
	Author int
	Body   string
	SentAt time.Time
}

// Load stores a world and sets the numbers of its accounts. A file that holds
// an organization already is left alone.
func (db *DB) Load(ctx context.Context, l Load, now time.Time) error {
	return db.update(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM organizations LIMIT 1)`).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return chat.Errorf(chat.Conflict, "the data file already holds organizations; a world is put into an empty file only")
		}
		p := loader{ctx: ctx, now: stamp(now)}
		for _, s := range []struct {
			stmt **sql.Stmt
			text string
		}{
			{&p.organization, `INSERT INTO organizations (name, created_at) VALUES (?, ?) RETURNING id`},
			{&p.account, `INSERT INTO accounts (organization_id, my_room_id, email, email_key, password, name, handle, department, title, language, time_zone, created_at)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`},
			{&p.room, `INSERT INTO rooms (type, name, description, icon, message_num, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id`},
			{&p.member, `INSERT INTO members (room_id, account_id, role, read_id) VALUES (?, ?, ?, ?)`},
			{&p.message, `INSERT INTO messages (room_id, account_id, body, sent_at) VALUES (?, ?, ?, ?) RETURNING id`},
		} {
			stmt, err := tx.PrepareContext(ctx, s.text)
			if err != nil {
				return err
			}
			defer stmt.Close()
			*s.stmt = stmt
		}
		for _, o := range l.Organizations {
			if err := p.load(o); err != nil {
				return err
			}
		}
		return nil
	})
}

// loader holds the statements of one Load.
type loader struct {
	ctx                                          context.Context
	now                                          int64
	organization, account, room, member, message *sql.Stmt
}

func (p *loader) load(o LoadOrganization) error {
	var org chat.OrganizationID
	if err := p.organization.QueryRowContext(p.ctx, o.Name, p.now).Scan(&org); err != nil {
		return err
	}
	for i := range o.Accounts {
		a := &o.Accounts[i].Account
		a.Organization, a.OrganizationName = org, o.Name
		if err := p.room.QueryRowContext(p.ctx, chat.My, a.Name, "", "", 0, p.now, p.now).Scan(&a.MyRoom); err != nil {
			return err
		}
		err := p.account.QueryRowContext(p.ctx, org, a.MyRoom, a.Email, chat.EmailKey(a.Email), o.Accounts[i].Password,
			a.Name, a.Handle, a.Department, a.Title, a.Language, a.TimeZone, p.now).Scan(&a.ID)
		if duplicate(err) {
			return chat.Errorf(chat.Conflict, "two accounts share one address")
		}
		if err != nil {
			return err
		}
		if _, err := p.member.ExecContext(p.ctx, a.MyRoom, a.ID, chat.Admin, 0); err != nil {
			return err
		}
	}
	for _, r := range o.Rooms {
		updated := p.now
		if n := len(r.Messages); n > 0 {
			updated = stamp(r.Messages[n-1].SentAt)
		}
		var id chat.RoomID
		if err := p.room.QueryRowContext(p.ctx, chat.Group, r.Name, r.Description, r.Icon, len(r.Messages), p.now, updated).Scan(&id); err != nil {
			return err
		}
		var last chat.MessageID
		for _, m := range r.Messages {
			if err := p.message.QueryRowContext(p.ctx, id, o.Accounts[m.Author].Account.ID, m.Body, stamp(m.SentAt)).Scan(&last); err != nil {
				return err
			}
		}
		for i, m := range r.Members {
			role := chat.Writer
			if i == 0 {
				role = chat.Admin
			}
			if _, err := p.member.ExecContext(p.ctx, id, o.Accounts[m].Account.ID, role, last); err != nil {
				return err
			}
		}
	}
	return nil
}
