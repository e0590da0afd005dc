package s3test

import (
	"net/http"
	"time"
)

// Fault is how an answer is broken. The zero value passes everything on as it is; what is set adds up.
type Fault struct {
	Delay time.Duration // before the request is passed on
	Reset bool          // the connection is reset, without an answer

	// Status, if not 0, is answered instead of asking the server, with Code and Message in XML as S3 writes them, or with
	// Body if that is set.
	Status  int
	Code    string
	Message string
	Body    string

	Header http.Header // replaces headers of the answer; nil values remove them

	// Replace, if not nil, is sent as the body instead of the server's.
	Replace []byte
	// Positions in the body of the answer, from 1, 0 being none: before which byte it is cut, before which it stalls, and in
	// which a bit flips. The length announced stays what it was. See Cut, Stall, Flip.
	CutAt, StallAt, FlipAt int64
}

// at is the position of the byte that comes after n bytes.
func at(n int64) int64 { return n + 1 }

// SlowDown is how S3 asks for fewer requests.
func SlowDown() *Fault {
	return &Fault{Status: http.StatusServiceUnavailable, Code: "SlowDown", Message: "Please reduce your request rate."}
}

// InternalError is how S3 fails.
func InternalError() *Fault {
	return &Fault{Status: http.StatusInternalServerError, Code: "InternalError", Message: "We encountered an internal error. Please try again."}
}

// Denied is how S3 answers who may not do that, and who may not know whether an object exists.
func Denied() *Fault {
	return &Fault{Status: http.StatusForbidden, Code: "AccessDenied", Message: "Access Denied"}
}

// Skewed is how S3 answers whose clock is wrong. The date of the answer is the client's own, so that it does not find out.
func Skewed() *Fault {
	return &Fault{Status: http.StatusForbidden, Code: "RequestTimeTooSkewed",
		Message: "The difference between the request time and the current time is too large."}
}

// Archived is how S3 answers for objects in Glacier.
func Archived() *Fault {
	return &Fault{Status: http.StatusForbidden, Code: "InvalidObjectState",
		Message: "The operation is not valid for the object's storage class"}
}

// Reset is a connection that is reset before an answer.
func Reset() *Fault { return &Fault{Reset: true} }

// Cut is a connection closed after n bytes of the body, which was announced longer.
func Cut(n int64) *Fault { return &Fault{CutAt: at(n)} }

// Stall is a connection on which nothing comes after n bytes of the body, until the client has enough.
func Stall(n int64) *Fault { return &Fault{StallAt: at(n)} }

// Flip is a bit that flips in byte n of the body, counted from 0.
func Flip(n int64) *Fault { return &Fault{FlipAt: at(n)} }
