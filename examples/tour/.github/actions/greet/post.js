console.log(`said before: ${process.env.STATE_greeted}`);
