package web

import (
	"context"

	"github.com/kidoban/kidoban/chatcore/chat"
)

var (
	DecodeFields = decodeFields
	Local        = local
	Locales      = locales
	Pump         = pump
)

const (
	FormType   = formType
	JSONType   = jsonType
	PingEvery  = pingEvery
	WriteLimit = writeLimit
)

// Source and Sink are the ends of Pump.
type (
	Source interface {
		Next(context.Context) (chat.Feed, error)
		Check() error
		Cursor() chat.EventID
	}
	Sink interface {
		Write(context.Context, []byte) error
		Ping(context.Context) error
	}
)
