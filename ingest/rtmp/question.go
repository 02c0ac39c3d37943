package rtmp

import (
	"bytes"
	"context"
	"fmt"

	gortmp "github.com/yutopp/go-rtmp"
	"github.com/yutopp/go-rtmp/message"
)

// questionCommand carries a question to OnUnknownCommandMessage: go-rtmp decodes it, and does nothing with it.
const questionCommand = "getStreamLength"

// OnUnknownCommandMessage answers what go-rtmp doesn't: some encoders wait for each answer, and others send
// on only after onFCPublish. "The receiver processes the command and sends back the response with the same
// transaction ID" (RTMP section 4.1.2). Whatever is asked, the answer is a _result: encoders give up on an
// _error to what other servers take without a word.
func (c *connection) OnUnknownCommandMessage(_ uint32, cmd *message.CommandMessage) error {
	name := cmd.CommandName
	if name == questionCommand {
		name = c.filter.sanitizer.asked
	}
	switch name {
	case "FCUnpublish", "closeStream":
		c.unpublish(true)
	}
	if cmd.TransactionID != 0 {
		if err := c.say(controlStream, "_result", cmd.TransactionID, nil, result(name)); err != nil {
			return err
		}
	}
	switch name {
	case "FCPublish":
		return c.say(controlStream, "onFCPublish", 0, nil, information("NetStream.Publish.Start", "Go on: publish the stream."))
	case "FCUnpublish":
		return c.say(controlStream, "onFCUnpublish", 0, nil, information("NetStream.Unpublish.Success", "The stream was stopped."))
	}
	return nil
}

// result is what a question is answered with besides that it was heard.
func result(name string) any {
	if name == "getStreamLength" {
		return 0.0 // seconds: live streams have no length
	}
	return nil
}

// information is the object that onStatus and its kind have last.
func information(code, description string) amfProperties {
	return amfProperties{{"level", "status"}, {"code", code}, {"description", description}}
}

// say has go-rtmp write a command. It goes by the chunk stream of go-rtmp's own answers, after those that
// aren't written yet: none may come before connect's.
func (c *connection) say(stream uint32, name string, transaction int64, args ...any) error {
	ctx, cancel := context.WithTimeout(c.ctx, answerTimeout)
	defer cancel()
	err := c.control.Write(ctx, chunksCommand, 0, &gortmp.ChunkMessage{
		StreamID: stream,
		Message: &message.CommandMessage{
			CommandName: name, TransactionID: transaction, Encoding: message.EncodingTypeAMF0,
			Body: bytes.NewReader(appendAMF(nil, args...)),
		},
	})
	if err != nil {
		return fmt.Errorf("answer a command: %w", err)
	}
	return nil
}
