"""What people read, for every verb: tables, progress, and text from outside made safe to show."""
