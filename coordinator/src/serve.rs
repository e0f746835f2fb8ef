//! Joins the stages: intake, planning, scheduling, sessions, publishing, web. Start reading here.
