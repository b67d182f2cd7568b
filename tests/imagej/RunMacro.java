import ij.IJ;
import ij.macro.MacroRunner;
import ij.plugin.frame.Recorder;
import java.awt.AWTEvent;
import java.awt.Button;
import java.awt.Checkbox;
import java.awt.Component;
import java.awt.Container;
import java.awt.Dialog;
import java.awt.Label;
import java.awt.TextArea;
import java.awt.TextField;
import java.awt.Toolkit;
import java.awt.event.ActionEvent;
import java.awt.event.ActionListener;
import java.awt.event.KeyEvent;
import java.awt.event.WindowEvent;
import java.io.File;
import java.lang.reflect.Field;
import java.util.ArrayDeque;
import java.util.Deque;

/**
 * RunMacro FOLDER MACRO...: runs macros as the menu of ImageJ does, with the plugins of a folder, one after the other; prints what each
 * wrote into the Log window.
 *
 * <p>Dialogs are printed, "DIALOG title | text", and answered with OK, as nobody sits there. A macro named {@code NAME.command} is no macro:
 * its first line is a command that is chosen from the menu with the Recorder open, each further line goes into a text field of the dialog,
 * "+" ticks a checkbox; what was recorded is printed. With
 * -Descape.when=FILE the Esc key is pressed as soon as that file is there.
 */
public class RunMacro {
    private static final Deque<String> fields = new ArrayDeque<>();

    public static void main(String[] args) throws Exception {
        Runtime.getRuntime().addShutdownHook(new Thread(RunMacro::printLog)); // also when the time is over
        Toolkit.getDefaultToolkit().addAWTEventListener(RunMacro::answer, AWTEvent.WINDOW_EVENT_MASK);
        Thread again = new Thread(RunMacro::answerAgain);
        again.setDaemon(true);
        again.start();
        ij.ImageJ.main(new String[] {"-ijpath", args[0]});
        for (int i = 1; i < args.length; i++) {
            say("=== " + new File(args[i]).getName());
            if (args[i].endsWith(".command")) record(new File(args[i]));
            else run(new File(args[i]));
            printLog();
            IJ.log("\\Clear");
        }
        System.exit(0);
    }

    private static void run(File macro) throws InterruptedException {
        MacroRunner runner = new MacroRunner(macro);
        String escape = System.getProperty("escape.when");
        if (escape != null) {
            while (!new File(escape).exists()) Thread.sleep(10);
            java.awt.Component window = IJ.getInstance();
            long now = System.currentTimeMillis();
            IJ.getInstance().keyPressed(new KeyEvent(window, KeyEvent.KEY_PRESSED, now, 0, KeyEvent.VK_ESCAPE, KeyEvent.CHAR_UNDEFINED));
        }
        runner.getThread().join();
        Thread.sleep(100); // a last window may still be opening
    }

    private static void record(File file) throws Exception {
        for (String line : java.nio.file.Files.readAllLines(file.toPath())) fields.add(line);
        IJ.run("Record...");
        String command = fields.remove();
        Thread running = new Thread(new ij.Executer(command), command); // as the menu does
        running.start();
        running.join();
        Thread.sleep(300);
        say("RECORDED " + Recorder.getInstance().getText().trim().replace("\n", "\\n"));
        Recorder.getInstance().close();
    }

    private static void say(String text) {
        System.out.println(text);
        System.out.flush();
    }

    private static void printLog() {
        String log = IJ.getLog();
        System.out.print(log == null ? "" : log);
        System.out.flush();
    }

    private static void answer(AWTEvent event) {
        if (event.getID() != WindowEvent.WINDOW_OPENED || !(event.getSource() instanceof Dialog)) return;
        Dialog dialog = (Dialog) event.getSource();
        fill(dialog);
        StringBuilder text = new StringBuilder();
        read(dialog, text);
        say("DIALOG " + dialog.getTitle() + " | " + text.toString().trim().replace("\n", " "));
        press(dialog);
    }

    /** Press OK in dialogs that are still there: one that was answered while it was just opening does not go away. */
    private static void answerAgain() {
        java.util.Set<java.awt.Window> seen = new java.util.HashSet<>();
        while (true) {
            try {
                Thread.sleep(1000);
            } catch (InterruptedException e) {
                return;
            }
            java.util.Set<java.awt.Window> open = new java.util.HashSet<>();
            for (java.awt.Window window : java.awt.Window.getWindows()) {
                if (!(window instanceof Dialog) || !window.isShowing()) continue;
                open.add(window);
                if (seen.contains(window)) java.awt.EventQueue.invokeLater(() -> press((Dialog) window));
            }
            seen = open;
        }
    }

    private static void fill(Container container) {
        for (Component c : container.getComponents()) {
            if (fields.isEmpty()) return;
            if (c instanceof TextField) ((TextField) c).setText(fields.remove());
            else if (c instanceof Checkbox && fields.remove().equals("+")) tick((Checkbox) c);
            else if (c instanceof Container) fill((Container) c);
        }
    }

    private static void tick(Checkbox box) {
        box.setState(true);
        for (java.awt.event.ItemListener l : box.getItemListeners())
            l.itemStateChanged(new java.awt.event.ItemEvent(box, 701, box.getLabel(), java.awt.event.ItemEvent.SELECTED));
    }

    private static void read(Container container, StringBuilder text) {
        for (Component c : container.getComponents()) {
            if (c instanceof Label) text.append(((Label) c).getText()).append('\n');
            else if (c instanceof TextArea) text.append(((TextArea) c).getText()).append('\n');
            else if (c instanceof TextField) text.append('<').append(((TextField) c).getText()).append(">\n");
            else if (c.getClass().getSimpleName().equals("MultiLineLabel")) text.append(lines(c)).append('\n');
            if (c instanceof Container) read((Container) c, text);
        }
    }

    private static String lines(Component label) {
        try {
            Field field = label.getClass().getDeclaredField("lines");
            field.setAccessible(true);
            return String.join("\n", (String[]) field.get(label));
        } catch (ReflectiveOperationException e) {
            return "(" + e + ")";
        }
    }

    private static boolean press(Container container) {
        for (Component c : container.getComponents()) {
            if (c instanceof Button && ((Button) c).getLabel().trim().equalsIgnoreCase("OK")) {
                for (ActionListener l : ((Button) c).getActionListeners())
                    l.actionPerformed(new ActionEvent(c, ActionEvent.ACTION_PERFORMED, ((Button) c).getLabel()));
                return true;
            }
            if (c instanceof Container && press((Container) c)) return true;
        }
        return false;
    }
}
